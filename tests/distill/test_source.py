"""Disk or forward: what decides, what is measured, and that a choice stays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from compress.distill import source as source_module
from compress.distill import stage as stage_module
from compress.distill.losses import HiddenStates, SoftTargets
from compress.distill.source import faster_on_disk, measured
from compress.distill.stage import Distill
from compress.models.quantities import HIDDEN, RELATIONS, SCORES
from compress.pipeline.workshop import Kind, Workshop
from tests.conftest import save_tiny, tiny_model
from tests.run.test_recipe import recipe
from tests.test_train import tokens


@pytest.mark.parametrize(
    ("forward", "write", "read", "epochs", "disk"),
    [
        (1.0, 0.1, 0.1, 1, False),  # one epoch needs one pass of the teacher either way
        (1.0, 0.1, 0.1, 2, True),
        (1.0, 0.5, 0.6, 2, False),
        (1.0, 0.5, 0.6, 4, True),
        (1.0, 0.1, 1.1, 99, False),  # a slow disk never wins
    ],
)
def test_disk_wins_when_reading_saves_more_than_writing_costs(
    forward: float, write: float, read: float, epochs: float, disk: bool
) -> None:
    assert faster_on_disk({"forward": forward, "write": write, "read": read}, epochs) is disk


def test_all_three_are_measured_and_nothing_is_left(tmp_path: Path) -> None:
    wanted = {HIDDEN: (0, 4), SCORES: (2,), **dict.fromkeys(RELATIONS, (4,))}
    seconds = measured(tiny_model(), tokens(100), wanted, tmp_path)
    assert set(seconds) == {"forward", "write", "read"}
    assert all(value > 0 for value in seconds.values())
    assert not list(tmp_path.iterdir())


def test_rows_that_are_taken_are_the_rows() -> None:
    rows = tokens(20)
    some = rows.take(np.array([7, 3, 19]))
    for place, row in enumerate((7, 3, 19)):
        ours, theirs = some.batch([place]), rows.batch([row])
        assert all(torch.equal(ours[name], theirs[name]) for name in ours if name != "rows")


@pytest.mark.parametrize(("disk", "said"), [(True, "kept on disk"), (False, "runs on every batch")])
def test_the_choice_is_said_with_its_figures_and_stays_when_work_goes_on(
    disk: bool, said: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(tmp_path / "teacher")
    losses = {"soft": SoftTargets(), "hidden": HiddenStates()}
    distill = Distill(losses=losses, epochs=2, learning_rate=5e-3, batch_size=16)
    whole = recipe(files, tmp_path / "teacher", tmp_path, distill=distill, quantize={}, prune={}, export={})
    monkeypatch.setattr(source_module, "faster_on_disk", lambda seconds, epochs: disk)
    fit = stage_module.fit

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage_module, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        whole.run(Console(quiet=True))
    monkeypatch.setattr(stage_module, "fit", fit)
    monkeypatch.setattr(source_module, "faster_on_disk", lambda seconds, epochs: not disk)  # the machine has changed
    whole.run(Console(quiet=True))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (note,) = [note for note in report["stages"][1]["notes"] if "the teacher" in note]
    assert said in note
    assert "faster over 2 epochs (ms per row: forward" in note
    made = {path.name.rpartition("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert ("teacher_outputs" in made) is disk


def test_outputs_that_lie_there_are_used(tmp_path: Path) -> None:
    workshop, thing = Workshop(tmp_path, Console(quiet=True)), Kind("thing", revision=1)
    assert not workshop.has(thing, [1])
    workshop.make(thing, [1], lambda folder: None)
    assert workshop.has(thing, [1])
