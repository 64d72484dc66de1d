"""Unlabelled rows: the teacher's outputs are their targets, and labels say nothing about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data import Files
from compress.data.dataset import Dataset, Split
from compress.distill.losses import HardLabels, LogitsMSE, SoftTargets
from compress.distill.objective import Distillation
from compress.distill.stage import Distill
from compress.distill.teacher_outputs import FromModel, on_disk
from compress.models.loading import save_model
from compress.models.outputs import observe
from compress.models.tokens import tokenize
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression
from tests.conftest import reviews, tiny_model, tiny_tokenizer


def split(rows: int, seed: int, kind: Any = np.int64) -> Split:
    made = reviews(rows, seed)
    return Split(tuple(text for _, text in made), None, (np.arange(rows) % 2).astype(kind))


def data(kind: Any = np.int64) -> Dataset:
    """Return six labelled rows, and four that are not."""
    task = Classification(("bad", "good")) if kind is np.int64 else Regression(0.0, 1.0)
    unlabelled = Split(tuple(text for _, text in reviews(4, 9)))
    return Dataset("made up", task, split(6, 1, kind), split(4, 2, kind), split(4, 3, kind), unlabelled)


@pytest.mark.parametrize("kept", ["forward", "disk"])
def test_the_teachers_outputs_are_the_targets_of_all_rows_and_labels_count_where_there_are_any(
    kept: str, tmp_path: Path
) -> None:
    tokens = tokenize(data().transfer, tiny_tokenizer(), 32)
    teacher, student = tiny_model(seed=1), tiny_model(seed=2, num_labels=2)
    with torch.no_grad():
        student.classifier.weight *= 30  # apart enough for fp32 to tell a ten-thousandth of the divergence
    batch = tokens.batch(np.array([9, 0, 7, 3, 8]))  # rows from 6 on have no label
    assert batch["labels"].tolist() == [-100, 0, -100, 1, -100]
    source: Any = FromModel(teacher, {}, tokens)
    if kept == "disk":
        source = on_disk(Workshop(tmp_path), Model(tmp_path, "teacher"), teacher, tokens, {})
    losses = {"soft": SoftTargets(temperature=2.0), "mse": LogitsMSE(), "hard": HardLabels()}
    objective = Distillation(student, losses, source, teacher.config)
    _, parts = objective(batch, 0.0)
    with torch.no_grad():
        ours, theirs = observe(student, batch).logits, observe(teacher, batch).logits
    p, q = (theirs / 2).softmax(-1), (ours / 2).softmax(-1)
    soft = np.mean([4 * float((p[row] * (p[row] / q[row]).log()).sum()) for row in range(5)])
    assert parts["soft"].item() == pytest.approx(soft, rel=1e-4)
    assert parts["mse"].item() == pytest.approx(float(((ours - theirs) ** 2).sum()) / 10, rel=1e-4)
    hard = -(float(ours[1].log_softmax(-1)[0]) + float(ours[3].log_softmax(-1)[1])) / 2
    assert parts["hard"].item() == pytest.approx(hard, rel=1e-4)


def test_weights_of_classes_are_in_the_loss_on_labels_alone(tmp_path: Path) -> None:
    tokens = tokenize(data().transfer, tiny_tokenizer(), 32)
    teacher, student = tiny_model(seed=1), tiny_model(seed=2, num_labels=2)
    task = Classification(("a", "b")).weighted({"b": 3.0}, np.array([0, 1]))
    losses, source = {"soft": SoftTargets(), "hard": HardLabels()}, FromModel(teacher, {}, tokens)
    batch = tokens.batch(np.array([9, 0, 3]))
    (_, plain), (_, weighed) = (
        Distillation(student, losses, source, teacher.config, task=each)(batch, 0.0) for each in (None, task)
    )
    assert torch.equal(plain["soft"], weighed["soft"])
    own = -observe(student, batch).logits.log_softmax(-1)
    expected = (0.5 * own[1, 0] + 1.5 * own[2, 1]) / 2
    torch.testing.assert_close(weighed["hard"], expected)


@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_a_batch_without_any_label_has_no_gradient_from_labels(kind: Any) -> None:
    tokens = tokenize(data(kind).transfer, tiny_tokenizer(), 32)
    student = tiny_model(num_labels=2 if kind is np.int64 else 1)
    objective = Distillation(student, {"hard": HardLabels()})
    loss, _ = objective(tokens.batch(np.array([6, 7, 8, 9])), 0.0)
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is None or not weight.grad.any() for weight in student.parameters())
    some, _ = objective(tokens.batch(np.array([0, 8])), 0.0)
    alone, _ = objective(tokens.batch(np.array([0])), 0.0)
    torch.testing.assert_close(some, alone)


def test_distillation_changes_with_unlabelled_rows_and_training_on_labels_does_not(tmp_path: Path) -> None:
    for name, seed in (("teacher", 1), ("student", 2)):
        (tmp_path / name).mkdir()
        save_model(tiny_model(seed=seed, num_labels=2), tiny_tokenizer(), tmp_path / name)
    given = data()
    results = {}
    for name, losses in (("soft", SoftTargets()), ("hard", HardLabels())):
        stage = Distill(losses={name: losses}, epochs=1, batch_size=4, learning_rate=1e-2)
        for which, rows in (("with", given), ("without", replace(given, unlabelled=None))):
            state = State.begin(
                data=rows, workshop=Workshop(tmp_path / "cache"), seed=1,
                teacher=Model(tmp_path / "teacher", "t"), student=Model(tmp_path / "student", "s"),
            )  # fmt: skip
            results[name, which] = stage(state).given_student.key
    assert results["soft", "with"] != results["soft", "without"]
    assert results["hard", "with"] == results["hard", "without"]


def test_a_file_of_unlabelled_rows_joins_the_transfer_set(tmp_path: Path) -> None:
    rows = reviews(40, 1)
    (tmp_path / "train.tsv").write_text("".join(f"{label}\t{text}\n" for label, text in rows))
    (tmp_path / "more.txt").write_text("a film\nthe plot\n")
    files = Files(train=str(tmp_path / "train.tsv"), unlabelled=str(tmp_path / "more.txt"))
    transfer = files.load("auto", 1).transfer
    assert transfer.texts[-2:] == ("a film", "the plot")
    assert transfer.known_labels[-2:].tolist() == [-100, -100]
    assert (transfer.known_labels[:-2] >= 0).all()
