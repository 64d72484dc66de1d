"""Projections of a narrow student go from stage to stage, and no further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from compress.distill.general import General
from compress.distill.layers import Layers
from compress.distill.losses import HiddenStates, SoftTargets
from compress.distill.projections import go_on, keep
from compress.distill.source import Keep
from compress.distill.stage import GOES_ON, Distill
from compress.models.loading import save_model
from compress.pipeline.model import Model
from compress.pipeline.rewrite import PROJECTIONS
from compress.prune.heads import PruneHeads
from compress.student.bert import Bert
from tests.conftest import reviews, save_tiny, tiny_model, tiny_tokenizer, write_tsv
from tests.distill.test_general import state_of
from tests.run.test_recipe import recipe

PARTS = ("train", "validation", "test")
NARROW = Bert(layers=2, hidden_size=8, heads=2)
SETTINGS: dict[str, Any] = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "teacher_outputs": Keep.disk}


def projections(width: int = 8) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(width, 16, bias=False) for name in ("states", "embeddings")})


def test_what_is_kept_comes_back_to_the_bit_and_only_where_it_fits(tmp_path: Path) -> None:
    first, second, wider = projections(), projections(), projections(12)
    keep(first, tmp_path)
    assert go_on(second, tmp_path)
    assert torch.equal(first["states"].weight, second["states"].weight)
    before = wider["states"].weight.clone()
    assert not go_on(wider, tmp_path)
    assert torch.equal(wider["states"].weight, before)
    assert not go_on(projections(), tmp_path / "none")


def test_a_student_of_the_teachers_width_leaves_none(tmp_path: Path) -> None:
    keep(nn.ModuleDict(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_tasks_stage_goes_on_with_the_general_stages_projection(tmp_path: Path) -> None:
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "teacher")
    teacher = Model(tmp_path / "teacher", "teacher")
    state = replace(state_of(tmp_path, NARROW), teacher=teacher)
    state = General(teacher=str(tmp_path / "teacher"), **SETTINGS)(state)
    learnt = load_file(state.given_student.folder / PROJECTIONS)
    state = Layers(**SETTINGS | {"learning_rate": 1e-12})(state)
    assert GOES_ON in state.records[-1].notes
    after = load_file(state.given_student.folder / PROJECTIONS)
    assert learnt.keys() == after.keys() == {"states.weight", "embeddings.weight"}
    for name, value in after.items():
        torch.testing.assert_close(value, learnt[name], atol=1e-6, rtol=0)


def test_recovery_goes_on_with_them_and_the_run_ships_none(tmp_path: Path) -> None:
    files = {name: write_tsv(tmp_path / f"{name}.tsv", reviews(60, 3 + place)) for place, name in enumerate(PARTS)}
    save_tiny(tmp_path / "teacher", "bert")
    losses = {"soft": SoftTargets(), "hidden": HiddenStates()}
    run = recipe(
        files, tmp_path / "teacher", tmp_path, student=NARROW, distill=Distill(losses=losses, **SETTINGS),
        prune={"heads": PruneHeads(ratio=0.4, rows=16, recovery_epochs=1)},
    )  # fmt: skip
    run.run()
    kept = list(Path(run.cache).rglob(PROJECTIONS))
    assert len(kept) == 3  # after distillation, pruning, recovery
    assert not list((tmp_path / "run").rglob(PROJECTIONS))
