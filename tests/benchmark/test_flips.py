"""Rows on which an artifact says something else than its student, and how the report shows them."""

from __future__ import annotations

import numpy as np

from compress.benchmark.figures import Flip, Flips
from compress.benchmark.flips import SHOWN, flips
from compress.data.dataset import Dataset, Split
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression


def data(task: Classification | Regression, rows: int, *, pairs: bool = False) -> Dataset:
    texts = tuple(f"text {row}" for row in range(rows))
    labels = np.arange(rows) % 2 if isinstance(task, Classification) else np.linspace(0, 1, rows)
    split = Split(texts, tuple(f"other {row}" for row in range(rows)) if pairs else None, labels)
    return Dataset("rows", task, split, split, split)


def test_flipped_rows_are_counted_and_the_first_of_them_named() -> None:
    student = np.zeros((50, 2), np.float32)
    student[:, 0] = 1
    artifact = student.copy()
    flipped = [3, *range(10, 45)]
    artifact[flipped, 1] = 3
    found = flips(data(Classification(("bad", "good")), 50, pairs=True), artifact, student)
    assert found.count == len(flipped)
    assert [flip.row for flip in found.rows] == [row + 1 for row in flipped[:SHOWN]]
    assert found.rows[0] == Flip(row=4, text="text 3 | other 3", label="good", student="bad 0.73", artifact="good 0.88")


def test_logits_that_move_without_another_answer_flip_nothing() -> None:
    student = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert flips(data(Classification(("bad", "good")), 2), 5 * student + 1, student) == Flips(count=0)
