"""Early exits as a stage: heads on a student that stays as it is, a rule chosen on validation rows, and its forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compress.benchmark.scores import ScoredRows
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.teacher_outputs import FromLogits
from compress.exits.choosing import ExitWorth, chosen, in_batches, leaving, thresholds, worth
from compress.exits.heads import ExitHeads, answers_of_heads
from compress.exits.stage import EarlyExits, EntropyExit, Exit, PatienceExit
from compress.families.forms.exiting import ENTROPY, PATIENCE, ExitingForm, ExitRule, set_rule
from compress.families.forms.uneven import shrink
from compress.known import Known
from compress.models.loading import load_model, load_tokenizer
from compress.models.tokens import tokenize
from compress.pipeline.state import State
from compress.runtimes.devices import CPU
from compress.runtimes.registry import load_session
from compress.runtimes.rows import one_by_one
from compress.settings import all_faults
from compress.student.bilstm import BiLstm
from compress.tasks.classification import Classification
from compress.tasks.functions import soft_target_loss
from compress.tasks.multi_label import MultiLabel
from compress.tasks.regression import Regression
from compress.tasks.tags import Tags
from tests.conftest import taught_state, tiny_batch, tiny_model
from tests.families.test_exiting import by_a_loop, with_exits

TASK = Classification(("bad", "good"))
SHORT: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2, "max_drop": 5.0}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> State:
    """A teacher that is the student too."""
    return taught_state(tmp_path_factory.mktemp("exits"))


@pytest.fixture(scope="module")
def after(before: State) -> State:
    """The state with the student's forms with exits."""
    return PatienceExit(**SHORT)(before)


def test_beneath_the_heads_the_student_is_as_it_was(before: State, after: State) -> None:
    student = load_model(before.given_student.folder).state_dict()
    exits = load_model(after.artifacts[0].folder).state_dict()
    assert all(torch.equal(value, exits[name]) for name, value in student.items())
    assert {name.partition(".")[0] for name in exits.keys() - student.keys()} == {"exits"}
    assert after.given_student == before.given_student


def test_all_forms_answer_rows_as_a_loop_over_the_layers_does(after: State) -> None:
    model = load_model(after.artifacts[0].folder)
    assert isinstance(model, ExitingForm)
    rule = model.rule
    assert rule is not None
    tokenizer, rows = load_tokenizer(after.artifacts[0].folder), ScoredRows(after)
    tokens = tokenize(after.data.test, tokenizer, 32)
    loops = [by_a_loop(model, tokens.batch([row]), rule) for row in range(len(tokens))]
    expected = np.stack([logits.numpy() for _, logits in loops])
    set_rule(model, rule)
    for artifact, most in zip(after.artifacts, (1e-5, 1e-4, 0.5), strict=True):
        found = one_by_one(load_session(artifact.folder, CPU), tokens)
        assert np.abs(found - expected).max() < most, artifact.name
    details = after.artifacts[0].details
    assert isinstance(details, EarlyExits)
    layers = np.array([layer for layer, _ in loops])
    assert details.average_layers == pytest.approx(layers.mean())
    assert list(details.rows_by_layer) == [int((layers == layer).sum()) for layer in range(1, 5)]
    assert details.batches["8"] == pytest.approx(np.mean([layers[at : at + 8].max() for at in range(0, 40, 8)]))
    kept = next(point for point in details.tried if point["threshold"] == details.threshold)
    metric = rows.metric(expected)
    assert kept["test"] == {"metric": pytest.approx(metric), "layers": pytest.approx(layers.mean())}


def test_the_heads_learn(before: State, after: State) -> None:
    heads = load_model(after.artifacts[0].folder)
    assert isinstance(heads, ExitingForm)
    rows = before.data.train
    found = answers_of_heads(heads, tokenize(rows, load_tokenizer(after.artifacts[0].folder), 32))
    teacher = found[-1]
    for own in found[:-1]:
        assert TASK.agreement(own, teacher) > 0.75


def test_the_gradient_is_the_papers_sum_and_nothing_else_learns() -> None:
    batch = tiny_batch(4, 12) | {"rows": torch.arange(4)}
    teacher = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    for learns, learning in ((False, 3), (True, 4)):
        model = with_exits().eval()
        losses = {"soft": SoftTargets(temperature=3.0), "hard": HardLabels(weight=0.5)}
        objective = ExitHeads(model, losses, FromLogits(teacher), TASK, student_learns=learns).eval()
        loss, parts = objective(batch, 0.0)
        inputs = {name: value for name, value in batch.items() if name not in ("labels", "rows")}
        total = torch.zeros(())
        for number, own in enumerate(model.of_every_head(**inputs)[:learning], start=1):
            soft = soft_target_loss(own, torch.from_numpy(teacher), 3.0)
            total = total + number * (soft + 0.5 * torch.nn.functional.cross_entropy(own, batch["labels"]))
        torch.testing.assert_close(loss, total / sum(range(1, learning + 1)))
        assert set(parts) == {"soft", "hard"}
        loss.backward()
        learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert all(name.startswith("exits.") for name in learned) is not learns
        assert objective.train().model.training is learns


def test_the_fastest_threshold_within_the_drop_is_taken() -> None:
    values = [
        ExitWorth(metric=0.80, layers=2.0),
        ExitWorth(metric=0.895, layers=3.0),
        ExitWorth(metric=0.90, layers=4.0),
    ]
    rules = [ExitRule(rule=PATIENCE, threshold=patience) for patience in (1.0, 2.0, 3.0)]
    assert [chosen(rules, values, 0.9, drop).threshold for drop in (10, 0.5, 0.4)] == [1, 2, 3]
    even = [ExitWorth(metric=0.90, layers=3.0), ExitWorth(metric=0.91, layers=3.0)]
    assert chosen(rules[:2], even, 0.9, 1.0).threshold == 2


def test_the_last_threshold_that_is_tried_keeps_every_row_to_the_end() -> None:
    logits = np.random.default_rng(1).normal(size=(5, 30, 3)).astype(np.float32)
    labels = np.arange(30) % 3
    task = Classification(("a", "b", "c"))
    for name in (PATIENCE, ENTROPY):
        rule = ExitRule(rule=name, threshold=0.0)
        tried = [replace(rule, threshold=value) for value in thresholds(rule, logits)]
        layers = [worth(each, logits, task, labels).layers for each in tried]
        assert layers == sorted(layers)
        assert layers[-1] == 5
        np.testing.assert_array_equal(leaving(tried[-1], logits)[1], logits[-1])


def test_a_batch_takes_the_layers_of_its_last_row() -> None:
    assert in_batches(np.array([1, 3, 2, 2, 1]), 2) == pytest.approx((3 + 2 + 1) / 3)


@pytest.mark.parametrize(
    ("stage", "known", "message"),
    [
        (PatienceExit(patience=4), {}, "patience = 4: must be below 4"),
        (PatienceExit(patience=0), {}, "patience = 0: must be at least 1"),
        (EntropyExit(entropy=0.7), {}, "entropy = 0.7: must lie in (0, 0.6931]"),
        (EntropyExit(entropy=-1), {"task": None}, "entropy = -1: must be above 0"),
        (PatienceExit(max_drop=-1), {}, "max_drop = -1"),
        (PatienceExit(freeze=["*"]), {}, "freeze"),
        (PatienceExit(tolerance=0.1), {}, "tolerance = 0.1: is for scores"),
        (PatienceExit(), {"task": Regression(0.0, 5.0)}, "tolerance: must say"),
        (EntropyExit(), {"task": Regression(0.0, 5.0)}, "needs probabilities"),
        (PatienceExit(), {"task": Tags(("O", "B-a"))}, "one class or score per row"),
        (PatienceExit(), {"task": MultiLabel(("a", "b"))}, "one class or score per row"),
        (EntropyExit(), {"student": "bilstm"}, "cannot give exits to a student of type compress_bilstm"),
        (EntropyExit(), {"student": shrink(tiny_model(), layers=[2]).config}, "at least two layers"),
    ],
)
def test_what_makes_no_sense_is_refused_before_work(stage: Exit, known: dict[str, Any], message: str) -> None:
    teacher = tiny_model().config
    about = {"student": teacher, "task": TASK, "teacher": teacher} | known
    if about["student"] == "bilstm":
        about["student"] = BiLstm().config(teacher)
    faults = [str(fault) for fault in all_faults(stage, Known(**about))]
    assert len([fault for fault in faults if message in fault]) == 1, faults
    assert not list(all_faults(type(stage)(), Known(student=teacher, task=TASK)))
