"""A plan says the rows and steps that a run then has, for every stage that trains, and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.augment.perturb import Perturb
from compress.cli.commands import plan as command
from compress.data import Files
from compress.distill.dual import Dual
from compress.distill.general import General
from compress.distill.layers import Layers
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.masked_lm import MaskedLM
from compress.distill.multi_task import MultiTask, OtherTask
from compress.distill.progressive import Progressive
from compress.distill.stage import Distill
from compress.distill.theseus import Theseus
from compress.pipeline.plan import Plan
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.prune.budget import Budget
from compress.prune.heads import PruneHeads
from compress.prune.weights import PruneWeights
from compress.quantize.qat import QuantizationAware
from compress.run import work
from compress.run.check import check
from compress.run.ledger import Ledger
from compress.run.plan import plan_of
from compress.run.recipe import Recipe
from compress.run.rehearsal import costs
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from compress.teachers.model import Teacher
from compress.train.trainer import ObjectiveTrainer
from tests.families.test_language_head import save_language_model
from tests.run.test_recipe import QUICK, recipe

Trained = list[tuple[str, int, int]]  # title, what an epoch draws, steps


def planned(plan: Plan) -> Trained:
    return [(t.title, t.count, t.steps) for step in plan.steps if (t := step.training)]


def trained(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, Trained]:
    """Return the plan of a recipe, and what its stages and the student on labels alone then train."""
    found: Trained = []
    train = ObjectiveTrainer.train

    def noted(trainer: Any, *given: Any, **named: Any) -> Any:
        found.append((trainer.callback_handler.callbacks[-1].title, len(trainer.order), trainer.args.max_steps))
        return train(trainer, *given, **named)

    checked = check(recipe)
    plan = plan_of(recipe, checked)
    assert not recipe.cache_folder.exists()
    assert not Path(str(recipe.output)).exists()
    monkeypatch.setattr(ObjectiveTrainer, "train", noted)
    state = State.begin(checked.data, Workshop(recipe.cache_folder), recipe.seed)
    for _, stage in recipe.stages():
        state = stage(state)
    if recipe.benchmark.labels_only:
        work._label_student(recipe, state, Ledger())
    return plan, found


def of_stages(files: dict[str, Path], teacher: Path, folder: Path, **changes: Any) -> Recipe:
    short = Distill(losses={"soft": SoftTargets(), "hard": HardLabels()}, epochs=1, batch_size=16)
    whole = recipe(files, teacher, folder, distill=short, prune={}, quantize={}, export={})
    own = Teacher(model=str(teacher), epochs=1, learning_rate=1e-2, batch_size=16, max_tokens=32, least_steps=12)
    return replace(whole, **({"teacher": own} | changes))


def test_rows_and_steps_of_a_plan_are_those_of_the_run(
    files: dict[str, Path], teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = of_stages(
        files, teacher_folder, tmp_path,
        prepare={"layers": Layers(epochs=1), "progressive": Progressive(epochs=0.5), "theseus": Theseus(epochs=0.3)},
        distill=Distill(losses={"soft": SoftTargets()}, epochs=0.7, batch_size=16, cycles=2),
        prune={"heads": PruneHeads(ratio=0.4, rows=40, rounds=2)}, benchmark=replace(QUICK, labels_only=True),
    )  # fmt: skip
    plan, found = trained(whole, monkeypatch)
    assert planned(plan) == found
    assert [title for title, _, _ in found] == [
        "teacher", "layers", "layer 1 of 2", "layer 2 of 2", "theseus", "distill", "distill", "distill", "distill",
        "labels_only", "labels_only",
    ]  # fmt: skip
    assert found[0] == ("teacher", 160, 12)  # the fewest steps, more than an epoch has
    assert [step.stage for step in plan.steps][-3:] == ["heads", "labels_only", "labels_only"]
    cost = costs(plan)
    assert all(each is not None and each.seconds > 0 for each in cost)
    outputs = [each.outputs_mib for each in cost if each is not None]
    assert outputs[1] > outputs[5] > 0  # layers' outputs, then logits alone
    assert outputs[6:] == [0.0] * 5  # which later trainings read again


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["general", "masked_lm", "dual", "multi_task", "lottery", "movement", "budget", "qat", "born_again", "words"],
)
def test_rows_and_steps_are_those_of_the_run_for_every_stage_that_trains(
    kind: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = save_language_model(tmp_path / "pretrained")
    other = Files(train=str(files["train"]), validation=str(files["validation"]))
    known = OtherTask(data=other, teacher=Teacher(model=str(teacher), epochs=1, max_tokens=32, least_steps=3))
    changes: dict[str, Any] = {
        "general": {"prepare": {"general": General(epochs=1, batch_size=16, rows=50)}},
        "masked_lm": {"prepare": {"masked_lm": MaskedLM(epochs=1, batch_size=16)}},
        "dual": {"prepare": {"dual": Dual(epochs=1, batch_size=16)}, "student": Bert(layers=2, vocabulary=60)},
        "multi_task": {"prepare": {"multi_task": MultiTask(epochs=1, batch_size=16, tasks={"other": known})}},
        "lottery": {"prune": {"weights": PruneWeights(method="lottery", recovery_epochs=0.5)}},
        "movement": {"prune": {"weights": PruneWeights(method="movement", recovery_epochs=1)}},
        "budget": {"prune": {"budget": Budget(parameters=9_000, widths=4, tries=0, rows=40, rounds=2)}},
        "qat": {"quantize": {"qat": QuantizationAware(agreement=0.0)}},
        "born_again": {"distill": Distill(losses={"soft": SoftTargets()}, epochs=1, batch_size=16, generations=2)},
        "words": {"student": BiLstm(), "benchmark": replace(QUICK, labels_only=True)},
    }[kind]
    plan, found = trained(of_stages(files, teacher, tmp_path, **changes), monkeypatch)
    assert planned(plan)[: len(found)] == found
    assert all(step.training and step.training.at_most for step in plan.steps[len(found) :])  # a budget is met early
    assert len(found) > 1
    assert all(each is not None and each.seconds > 0 for each in costs(plan))


def test_rows_that_augmentations_add_are_counted_at_most(
    files: dict[str, Path], teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augmented = of_stages(files, teacher_folder, tmp_path, augment={"perturb": Perturb(copies=2)})
    plan, found = trained(augmented, monkeypatch)
    (_, distill), (_, most) = (line[-1][::2] for line in (found, planned(plan)))
    assert 160 // 16 < distill <= most == 3 * 160 // 16
    assert plan.steps[-1].training is not None
    assert plan.steps[-1].training.at_most


def test_the_command_prints_a_line_for_every_stage_and_the_shapes(
    files: dict[str, Path], teacher_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = of_stages(
        files, teacher_folder, tmp_path, quantize={"qat": QuantizationAware()}, benchmark=replace(QUICK, batches=[1, 8])
    )
    assert command.show_plan(whole) == 0
    told = capsys.readouterr().out
    assert "layers, student from teacher: 1 from 2, 2 from 4" in told
    for words in ("teacher", "student", "distill", "qat_training", "qat_control"):
        assert words in told
    assert "times each model for up to 0.0600 s" in told  # real rows, and two sizes of a batch
    assert not whole.cache_folder.exists()
