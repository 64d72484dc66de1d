"""Cutting to a shape that is named: what is refused, what is left, and that it can come before the distillation."""

from __future__ import annotations

from dataclasses import replace
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
from tests.run.test_recipe import QUICK, recipe


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


def test_a_student_that_was_cut_in_every_way_learns_and_so_does_its_twin_on_labels(
    files: dict[str, Path], teacher_folder: Path, tmp_path: Path
) -> None:
    settings = {"epochs": 1, "batch_size": 16}
    chain = recipe(
        files, teacher_folder, tmp_path, student=Bert(layers=3),
        prepare={
            "shape": cut([2, 0, 1], [16, 0, 3]),
            "width": PruneWidth(ratio=0.5, rows=24, recovery_epochs=0, multiple_of=2),
            "vocabulary": PruneVocabulary(),
            "layers": Layers(losses=["hidden"], **settings),
        },
        distill=Distill(losses={"soft": SoftTargets(), "hidden": HiddenStates()}, **settings),
        prune={}, quantize={}, export={}, benchmark=replace(QUICK, labels_only=True),
    )  # fmt: skip
    run = chain.run()
    student = load_config(run.folder / "student")
    assert student.hidden_size < load_config(teacher_folder).hidden_size
    assert shape_of(student) == ((2, 16), (1, 3))
    stages = {stage.name: stage.parameters for stage in run.report.stages}
    twin = next(entry for entry in run.report.baselines if entry.name == "labels_only")
    assert stages["shape"] > stages["width"] >= stages["distill"] == twin.parameters
    assert "went without layers, and so" in (run.folder / "report.md").read_text()
