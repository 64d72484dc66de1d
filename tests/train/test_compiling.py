"""A model that is compiled while it is trained: the same gradients, the same names, and nothing left of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from compress.distill.losses import LOSSES
from compress.distill.objective import Distillation
from compress.distill.teacher_outputs import FromModel
from compress.settings import all_faults
from compress.train import Training, compiling, fit
from tests.conftest import tiny_model
from tests.test_train import tokens
from tests.train.test_division import ALL, CALM, PAIRS


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(all_faults(Training(compile=True)))
    (fault,) = all_faults(Training(compile=True, gradient_checkpointing=True))
    assert fault.rule == "cannot be combined with gradient_checkpointing"
    monkeypatch.setattr(shutil, "which", lambda _: None)
    (fault,) = all_faults(Training(compile=True))
    assert (fault.rule, fault.remedy) == ("needs a C++ compiler", "Install g++, or leave it out.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("losses", "backend", "layer_drop"),
    [
        (["soft", "hidden"], "inductor", 0.0),
        (["soft", "hidden", "attention", "relations"], "eager", 0.0),
        (["soft", "hidden"], "eager", 0.5),
    ],
    ids=["inductor", "watched", "skipped"],
)
def test_a_compiled_student_learns_the_same_whatever_losses_watch(
    losses: list[str], backend: str, layer_drop: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", backend)
    teacher = tiny_model(seed=3)
    found = []
    for compiled in (False, True):
        torch._dynamo.reset()
        student = tiny_model(**CALM)
        objective = Distillation(
            student, {name: LOSSES[name]() for name in losses}, FromModel(teacher, ALL), teacher.config, PAIRS,
            layer_drop=layer_drop,
        )  # fmt: skip
        settings = Training(epochs=2, batch_size=8, learning_rate=1e-3, compile=compiled)
        fit(objective, tokens(32), settings, seed=3, folder=tmp_path / str(compiled), title="t", validate=dict)
        assert student._compiled_call_impl is None
        found.append((student.state_dict(), settings.made_with()))
    (expected, key), (weights, other_key) = found
    assert key == other_key
    assert list(expected) == list(weights)
    learnt = {name: value for name, value in expected.items() if not name.endswith("key.bias")}  # which no loss moves
    for name, value in learnt.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4, msg=name)
