"""Tasks: how labels are read, and metrics with their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from compress.tasks.classification import Classification
from compress.tasks.registry import task_class
from compress.tasks.regression import Regression
from compress.tasks.statistics import wilson


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", "a", "b"], Classification(("a", "b"))),
        (["10", "2", "1"], Classification(("1", "2", "10"))),
        (["-1", "1", "0"], Classification(("-1", "0", "1"))),
        (["--1", "1"], Classification(("--1", "1"))),
        (["1.0", "2.5"], Classification(("1.0", "2.5"))),
        ([f"{i / 10}" for i in range(30)], Regression(0.0, 2.9)),
        ([str(i) for i in range(30)], Classification(tuple(str(i) for i in range(30)))),
    ],
)
def test_the_task_is_read_off_the_labels(labels: list[str], expected: object) -> None:
    assert task_class("auto", labels).of_labels(labels) == expected


def test_words_are_no_scores() -> None:
    with pytest.raises(ValueError, match="good"):
        Regression.of_labels(["1", "good"])
    with pytest.raises(ValueError, match="nan"):
        Regression.of_labels(["1", "nan"])


def test_wilson_is_the_textbooks_interval() -> None:
    """Newcombe (1998), table I: 81 of 263 and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_metrics_of_classes() -> None:
    task = Classification(("a", "b", "c"))
    logits, labels = np.eye(3)[[0, 1, 1, 2]], np.array([0, 1, 2, 2])
    assert task.metrics(logits, labels)["accuracy"] == 0.75
    assert task.metrics(logits, labels)["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert task.metrics(np.eye(3)[[1, 1]], np.array([1, 1]))["mcc"] == 0
    assert task.agreement(logits, np.eye(3)[[0, 1, 2, 2]]) == 0.75
    low, high = task.intervals(logits, labels)["accuracy"]
    assert low < 0.75 < high


def test_metrics_of_scores() -> None:
    task = Regression(0.0, 5.0)
    labels = np.array([0.0, 1.0, 2.0, 5.0])
    metrics = task.metrics(2 * labels[:, None] + 1, labels)
    assert (metrics["pearson"], metrics["spearman"]) == pytest.approx((1, 1))
    assert metrics["mse"] == pytest.approx(np.mean((labels + 1) ** 2))
    assert task.metrics(np.zeros((4, 1)), labels)["pearson"] == 0
    assert task.agreement(labels[:, None], labels[:, None] + 0.05) == 1
    assert task.agreement(labels[:, None], labels[:, None] + 0.2) == 0


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_metrics_of_a_confusion_matrix_are_scikit_learns(classes: int) -> None:
    from compress.tasks.statistics import from_confusion

    generator = np.random.default_rng(classes)
    task = Classification(tuple(map(str, range(classes))))
    for rows in (1, 2, 7, 60):
        labels = generator.integers(0, classes, rows)
        predicted = np.where(generator.random(rows) < 0.5, labels, generator.integers(0, classes, rows))
        matrix = np.zeros((classes, classes), dtype=np.int64)
        for label, answer in zip(labels, predicted, strict=True):
            matrix[label, answer] += 1
        assert from_confusion(matrix) == pytest.approx(task.metrics(np.eye(classes)[predicted], labels))
