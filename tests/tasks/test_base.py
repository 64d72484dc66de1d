"""Tasks: how labels are read, and metrics with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.tasks.adoption import Adoption
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
    assert task.metrics(logits, labels)["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
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
def test_metrics_are_scikit_learns_over_the_classes_that_occur(classes: int) -> None:
    from sklearn.metrics import f1_score, matthews_corrcoef, recall_score

    generator = np.random.default_rng(classes)
    task = Classification(tuple(map(str, range(classes)))).judged_by("f1:1")
    for rows in (2, 7, 60):
        labels = generator.integers(0, classes, rows)
        predicted = np.where(generator.random(rows) < 0.5, labels, generator.integers(0, classes, rows))
        some: dict[str, object] = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
        assert task.metrics(np.eye(classes)[predicted], labels) == pytest.approx(
            {
                "accuracy": (predicted == labels).mean(),
                "macro_f1": f1_score(labels, predicted, **some),
                "balanced_accuracy": recall_score(labels, predicted, **some),
                "mcc": matthews_corrcoef(labels, predicted) if len({*labels, *predicted}) > 1 else 0,
                "f1:1": f1_score(labels, predicted, labels=[1], average="macro", zero_division=0),
            }
        )


def test_each_class_is_told_with_its_rows_and_those_that_nobody_has() -> None:
    task = Classification(("no", "yes", "never"))
    no, yes, never = task.by_class(np.eye(3)[[0, 0, 0, 1, 2]], np.array([0, 0, 1, 1, 0]))
    assert (no.rows, no.answered, no.f1) == (3, 3, pytest.approx(2 / 3))
    assert (yes.precision, yes.recall, yes.f1) == (1.0, 0.5, pytest.approx(2 / 3))
    assert (never.rows, never.answered, never.precision, never.recall, never.f1) == (0, 1, 0.0, 0.0, 0.0)
    assert task.metrics(np.eye(3)[[0, 1]], np.array([0, 1]))["macro_f1"] == 1  # never does not count


def test_weights_of_classes_have_a_mean_of_one_over_the_rows() -> None:
    labels = np.array([0] * 97 + [1] * 3)
    balanced = Classification(("a", "b")).weighted(None, labels)
    assert balanced.weights == pytest.approx((100 / (2 * 97), 100 / (2 * 3)))
    given = Classification(("a", "b")).weighted({"b": 5.0}, labels)
    assert given.weights[1] / given.weights[0] == pytest.approx(5)
    for task in (balanced, given):
        assert np.take(task.weights, labels).mean() == pytest.approx(1)
    with pytest.raises(ValueError, match="'c'"):
        balanced.weighted({"c": 2.0}, labels)
    with pytest.raises(ValueError, match="scores"):
        Regression(0.0, 1.0).weighted(None, np.zeros(3))


def test_the_loss_on_labels_is_the_weighted_cross_entropy() -> None:
    labels, logits = torch.tensor([0, 0, 0, 1]), torch.randn(4, 2)
    task = Classification(("a", "b")).weighted(None, labels.numpy())
    rows = torch.nn.functional.cross_entropy(logits, labels, weight=torch.tensor(task.weights), reduction="none")
    torch.testing.assert_close(task.loss(logits, labels), rows)
    for mean in (task.mean_loss(logits, labels), task.head_loss(logits, labels)):
        torch.testing.assert_close(mean, rows.mean())
    whole = torch.nn.functional.cross_entropy(logits, labels, torch.tensor(task.weights))
    torch.testing.assert_close(rows.mean(), whole)  # divided by the weights of the rows, whose mean is 1 here


def test_weights_follow_the_classes_into_another_order() -> None:
    task = Classification(("a", "b")).judged_by("f1:b").weighted({"b": 3.0}, np.array([0, 1]))
    adoption = Adoption(("x", "b", "a"), {"a": 2, "b": 1})
    moved, _ = task.renumbered(adoption, [])
    assert moved.output_names == ("x", "b", "a")
    assert moved.weights == (1.0, task.weights[1], task.weights[0])
    assert moved.main_metric == "f1:b"


@pytest.mark.parametrize(
    ("rows", "metric", "named"),
    [
        ([80, 20], "accuracy", "is right on 80.0%"),
        ([79, 21], "accuracy", ""),
        ([96, 96, 9], "accuracy", ""),
        ([98, 98, 5], "accuracy", "hardly sees 'c'"),
        ([97, 3], "macro_f1", ""),
    ],
)
def test_accuracy_that_misleads_is_called_so_with_the_remedy(rows: list[int], metric: str, named: str) -> None:
    task = Classification(("a", "b", "c")[: len(rows)]).judged_by(metric)
    told = list(task.doubts(np.repeat(np.arange(len(rows)), rows)))
    assert len(told) == bool(named)
    assert all(named in line and "task.metric=macro_f1" in line for line in told)
