"""Module replacement: the mixture, what learns, how often, and a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.distill.losses import HardLabels
from compress.distill.stage import Distill
from compress.distill.theseus import Replacement, Theseus
from compress.models.families import FAMILIES, encoder_layers
from compress.models.outputs import observe
from compress.student.bert import Bert
from compress.train import fit
from tests.conftest import FAMILY_NAMES, save_tiny, tiny_batch, tiny_model
from tests.test_recipe import recipe
from tests.test_train import tokens


@pytest.mark.parametrize("family", FAMILY_NAMES)
@torch.no_grad()
def test_the_mixture_is_the_teacher_the_student_or_something_between(family: str) -> None:
    teacher, batch = tiny_model(family), tiny_batch(family=family)
    student = Bert(layers=2, layer_map=[1, 3]).build(teacher)
    names = FAMILIES[family]
    for parameter in encoder_layers(student, names).parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    objective = Replacement(student, teacher, Theseus()).eval()
    assert torch.equal(objective.mixed(batch, [False, False]), observe(teacher, batch).logits)
    torch.testing.assert_close(objective.mixed(batch, [True, True]), observe(student, batch).logits)
    # the first run replaced: student layer 1, then teacher layers 3 and 4
    by_hand = tiny_model(family)
    stack = by_hand.get_submodule(f"{names.base}.{names.layers.rpartition('.')[0]}")
    theirs = encoder_layers(teacher, names)
    stack.layer = nn.ModuleList([encoder_layers(student, names)[0], theirs[2], theirs[3]])
    torch.testing.assert_close(objective.mixed(batch, [True, False]), observe(by_hand, batch).logits)
    assert len(encoder_layers(teacher, names)) == 4


def test_only_the_students_layers_learn_and_the_teacher_stays(tmp_path: Path) -> None:
    teacher = tiny_model()
    student = Bert(layers=2).build(teacher)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    theirs = {name: value.clone() for name, value in teacher.state_dict().items()}
    settings = Theseus(epochs=1, learning_rate=1e-2, batch_size=8)
    fit(
        Replacement(student, teacher, settings), tokens(40), settings, seed=1, folder=tmp_path, title="t",
        validate=dict,
    )  # fmt: skip
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("bert.encoder.layer.") for name in changed)
    assert all(torch.equal(value, theirs[name]) for name, value in teacher.state_dict().items())


def test_the_probability_rises_to_its_end_and_draws_follow_it() -> None:
    settings = Theseus(rate=0.2, rate_end=1.0, full_at=0.5)
    assert [settings.rate_at(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    teacher = tiny_model()
    constant = Replacement(Bert(layers=2).build(teacher), teacher, Theseus(rate=0.3, rate_end=0.3))
    torch.manual_seed(0)
    with torch.no_grad():
        shares = [float(constant(tiny_batch(), 0.9)[1]["replaced"]) for _ in range(200)]
    assert sum(shares) / 200 == pytest.approx(0.3, abs=0.08)  # four standard errors of 400 draws are 0.09


@pytest.mark.parametrize(
    ("student", "count"), [(Bert(layers=3), 1), (Bert(layers=4), 1), (Bert(layers=2, hidden_size=8, heads=2), 1)]
)
def test_students_that_do_not_fit_are_refused(student: Bert, count: int) -> None:
    teacher = tiny_model().config
    assert len(list(Theseus().model_faults(student.config(teacher), teacher))) == count


def test_replacement_then_fine_tuning_is_one_run(files: dict[str, Path], tmp_path: Path) -> None:
    save_tiny(tmp_path / "teacher")
    parts = {
        "prepare": {"theseus": Theseus(epochs=2, learning_rate=5e-3, batch_size=16)},
        "distill": Distill(losses={"hard": HardLabels()}, epochs=1, learning_rate=1e-3, batch_size=16),
        "quantize": {},
    }
    recipe(files, tmp_path / "teacher", tmp_path, **parts).run()
    said = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [stage["name"] for stage in said["stages"]] == ["teacher", "theseus", "distill", "heads"]
    assert said["stages"][1]["metrics"]["accuracy"] > 0.6
    assert all(record.reused for record in recipe(files, tmp_path / "teacher", tmp_path, **parts).run().records)
