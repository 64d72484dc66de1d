"""Born-again networks: each generation is taught by the one before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.distill.losses import HardLabels, HiddenStates, Relations, SoftTargets
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.known import Known
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.prune.heads import PruneHeads
from compress.report.document import parse
from compress.report.verdict import verdicts
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from tests.conftest import save_tiny, tiny_model, write_tsv
from tests.run.test_recipe import BASELINES, made, recipe, report, reviews

LOSSES = {"soft": SoftTargets(temperature=1.0), "hidden": HiddenStates(), "hard": HardLabels()}


def again(folder: Path, generations: int = 2, **changes: Any) -> Recipe:
    distill = Distill(
        losses=dict(LOSSES), epochs=1, learning_rate=5e-3, batch_size=16, generations=generations,
        teacher_outputs=Keep.disk,
    )  # fmt: skip
    files = {name: folder / f"{name}.tsv" for name in ("train", "validation", "test")}
    parts: dict[str, Any] = {
        "student": Bert(layers=2), "distill": distill, "quantize": {}, "export": {}, "benchmark": BASELINES, **changes,
    }  # fmt: skip
    return recipe(files, folder / "teacher", folder, **parts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A finished run of two generations, then pruned heads."""
    folder = tmp_path_factory.mktemp("generations")
    for name, size in (("train", (160, 1)), ("validation", (40, 2)), ("test", (60, 3))):
        write_tsv(folder / f"{name}.tsv", reviews(*size))
    save_tiny(folder / "teacher")
    return folder, again(folder).run().state


def test_every_generation_is_reported_under_its_own_name(finished: tuple[Path, State]) -> None:
    folder, state = finished
    stages = report(folder)["stages"]
    assert [stage["name"] for stage in stages] == ["teacher", "distill", "distill-2", "heads"]
    assert len({record.model.key for record in state.records}) == 4
    assert sorted(path.name for path in (folder / "run" / "stages").iterdir()) == [
        "00-teacher", "01-distill", "02-distill-2", "03-heads",
    ]  # fmt: skip
    assert stages[0]["agreement"] == 1.0
    assert [stage["retained"] for stage in stages] == pytest.approx(
        [stage["metrics"]["accuracy"] / stages[0]["metrics"]["accuracy"] for stage in stages]
    )


def test_a_generation_is_taught_by_the_one_before_from_the_same_start_with_the_next_seed(
    finished: tuple[Path, State],
) -> None:
    folder, state = finished
    first, second = (record.model for record in state.records[1:3])
    shop = Workshop(folder / "cache")
    state = replace(state, context=replace(state.context, workshop=shop))
    start = Bert(layers=2)(state).given_student
    by_hand = replace(state, teacher=first).with_seed(state.seed + 1)
    product = replace(again(folder).distill, generations=1, layer_map="uniform").train(by_hand, start)
    assert product.reused
    assert Model.of(product) == second
    assert state.given_teacher == state.records[0].model


def test_recovery_after_pruning_is_taught_by_the_original_teacher(finished: tuple[Path, State]) -> None:
    folder, state = finished
    context = replace(state.context, workshop=Workshop(folder / "cache"))
    given = replace(state, context=context, student=state.records[2].model)
    pruned = PruneHeads(ratio=0.4, rows=40)(given)
    assert pruned.records[-1].reused
    assert pruned.given_student == state.given_student


def test_one_more_generation_adds_to_what_is_done(finished: tuple[Path, State]) -> None:
    folder, _ = finished
    before = made(folder)
    again(folder).run()
    assert made(folder) == before
    again(folder, generations=3, prune={}, output=str(folder / "three")).run()
    kinds = sorted(name.rpartition("-")[0] for name in made(folder) - before)
    assert [kind for kind in kinds if kind not in ("logits", "latency")] == ["distill", "teacher_outputs"]
    names = [stage["name"] for stage in json.loads((folder / "three" / "report.json").read_text())["stages"]]
    assert names == ["teacher", "distill", "distill-2", "distill-3"]


def test_the_verdict_is_about_the_last_generation(finished: tuple[Path, State]) -> None:
    facts = report(finished[0])
    first, last = facts["stages"][1:3]
    assert "labels_only" not in first.get("differences", {})
    last["differences"]["labels_only"] |= {"value": 0.123, "low": 0.1, "high": 0.15, "p": 0.001}
    assert any("Distillation helped: accuracy +12.3 points" in sentence for sentence in verdicts(parse(facts)))


def test_a_born_again_student_is_the_teacher_it_was_before_training(tmp_path: Path) -> None:
    for name, size in (("train", (96, 1)), ("validation", (20, 2)), ("test", (40, 3))):
        write_tsv(tmp_path / f"{name}.tsv", reviews(*size))
    save_tiny(tmp_path / "teacher")
    state = again(tmp_path, student=Bert(layers="all", start="pretrained"), prune={}).run().state
    assert [len(stage["layers"]) for stage in report(tmp_path)["stages"]] == [4, 4, 4]
    assert state.pretrained == str(tmp_path / "teacher")


def test_losses_must_suit_the_next_generation_too() -> None:
    teacher = tiny_model().config
    student = Bert(layers=2).config(teacher)
    losses: dict[str, Any] = {"relations": Relations(teacher_layer=4)}
    assert not list(Distill(losses=losses).faults(Known(student=student, teacher=teacher)))
    (fault,) = Distill(losses=losses, generations=2).faults(Known(student=student, teacher=teacher))
    assert fault.setting == "losses.relations.teacher_layer"
    assert not list(Distill(generations=3, layer_map=[1, 3]).faults(Known(student=student, teacher=teacher)))
    assert [fault.setting for fault in Distill(generations=0).faults()] == ["generations"]


def test_the_largest_seed_has_a_next_one(finished: tuple[Path, State], tmp_path: Path) -> None:
    _, state = finished
    distill = Distill(losses={"soft": SoftTargets()}, epochs=0.1, learning_rate=1e-3, generations=2)
    (tmp_path / "cache").mkdir()
    shop = Workshop(tmp_path / "cache")
    last = replace(state, context=replace(state.context, seed=2**32 - 1, workshop=shop))
    made_here = distill(last)
    again = replace(last, teacher=made_here.records[-2].model).with_seed(0)
    product = replace(distill, layer_map="uniform").train(again, last.given_student)
    assert product.reused
    assert Model.of(product) == made_here.given_student
