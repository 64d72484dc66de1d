"""Cutting to a shape that is named: what is refused, what is left, and that it can come before the distillation."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.distill.layers import Layers
from compress.distill.losses import HiddenStates, SoftTargets
from compress.distill.stage import Distill
from compress.errors import ModelError
from compress.families.forms.uneven import kept_heads, neurons
from compress.known import Known
from compress.models.loading import load_config
from compress.prune.costs import shape_of
from compress.prune.shape import PruneToShape
from compress.prune.vocabulary import PruneVocabulary
from compress.prune.width import PruneWidth
from compress.student.bert import Bert
from tests.conftest import taught_state, tiny_model


def cut(heads: list[int], units: list[int], **settings: float) -> PruneToShape:
    return PruneToShape(heads=heads, units=units, rows=24, recovery_epochs=settings.get("recovery_epochs", 0))


def test_layers_have_the_heads_and_units_that_are_named_and_0_leaves_one_out(tmp_path: Path) -> None:
    state = Bert(layers="all")(taught_state(tmp_path))
    whole = shape_of(load_config(state.given_student.folder))
    (heads, units), count = whole[0], len(whole)
    asked = cut([heads, *[0] * (count - 2), 1], [units // 2, *[0] * (count - 2), 3])
    config = load_config(asked(state).given_student.folder)
    assert [len(kept) for kept in kept_heads(config)] == [heads, 1]
    assert neurons(config) == [units // 2, 3]
    assert config.teacher_layers == [1, count]
    with pytest.raises(ModelError, match=rf"asks for 99 × 3 of layer 1, which has {heads} × {units}"):
        cut([99] * count, [3] * count)(state)


@pytest.mark.parametrize(
    ("heads", "units", "rule"),
    [
        ([], [], "must each have an entry for every layer"),
        ([1, 1], [3], "must each have an entry for every layer"),
        ([1, 0], [3, 3], "must be above 0 in the same layers"),
        ([0, 0], [0, 0], "leaves no layer"),
        ([1], [3], "names 1 layers, and the student has"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(heads: list[int], units: list[int], rule: str) -> None:
    known = Known(student=tiny_model().config)
    assert rule in " ".join(str(fault) for fault in cut(heads, units).faults(known))


def test_what_is_cut_before_the_distillation_does_not_recover(tmp_path: Path) -> None:
    early = cut([1], [3], recovery_epochs=1)
    before = Known(stages={"prepare.shape": early})
    assert [fault.setting for fault in early.faults(before)] == ["recovery_epochs"]
    assert not list(early.faults(Known(stages={"prune.shape": early})))


def test_a_student_that_was_cut_in_every_way_learns_from_layers_and_logits(tmp_path: Path) -> None:
    state = Bert(layers="all")(taught_state(tmp_path, rows=20))
    shape = shape_of(load_config(state.given_student.folder))
    heads, units = [1 for _ in shape], [width // 2 for _, width in shape]
    settings = {"epochs": 1, "batch_size": 16}
    for stage in (
        cut(heads, units),
        PruneWidth(ratio=0.5, rows=24, recovery_epochs=0, multiple_of=2),
        PruneVocabulary(),
        Layers(losses=["hidden"], **settings),
        Distill(losses={"soft": SoftTargets(), "hidden": HiddenStates()}, **settings),
    ):
        state = stage(state)
    teacher, student = (load_config(model.folder) for model in (state.given_teacher, state.given_student))
    assert student.hidden_size < teacher.hidden_size
    assert shape_of(student) == tuple(zip(heads, units, strict=True))
