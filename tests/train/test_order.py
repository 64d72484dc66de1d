"""The order of rows: similar lengths together, classes mixed, or at random; all rows once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.data.dataset import Split
from compress.models.tokens import tokenize
from compress.tasks.base import Array
from compress.tasks.classification import Classification
from compress.tasks.multi_label import MultiLabel
from compress.tasks.regression import Regression
from compress.train import LengthGrouped, Shuffled, Training, order_of
from compress.train.order import InOrder, permutation
from tests.conftest import tiny_tokenizer

BATCH = 32


def long_and_short(rows: int = 6400) -> tuple[Array, Array]:
    """Return lengths and classes that go together: rows of the last class are longer, as in real data."""
    generator = np.random.default_rng(4)
    classes = generator.choice(3, rows, p=[0.5, 0.3, 0.2])
    return 3 + generator.poisson(np.array([9, 10, 13])[classes]), classes


def batches(order: Any) -> Array:
    return np.array(list(order)).reshape(-1, BATCH)


def unevenness(classes: Array, rows: Array) -> float:
    """Return how much shares of the worst class differ between batches: 1 where rows are drawn at random."""
    shares = np.bincount(classes) / len(classes)
    spreads = [(classes[rows] == number).mean(1).std() for number in range(len(shares))]
    return float(max(spread / np.sqrt(q * (1 - q) / BATCH) for spread, q in zip(spreads, shares, strict=True)))


def padded(lengths: Array, rows: Array) -> float:
    """Return the tokens of batches, padding included, over those that rows have."""
    return float(lengths[rows].max(1).sum() * BATCH / lengths[rows].sum())


def test_classes_are_mixed_within_batches_of_similar_lengths() -> None:
    lengths, classes = long_and_short()
    alone, mixed = (batches(LengthGrouped(lengths, BATCH, 1, of)) for of in (None, classes))
    shuffled = batches(Shuffled(len(lengths), 1))
    assert unevenness(classes, alone) > 1.5
    assert unevenness(classes, mixed) - 1 < (unevenness(classes, alone) - 1) / 2
    assert 1 < padded(lengths, alone) < padded(lengths, mixed) < 1.15
    assert padded(lengths, shuffled) > 1.5
    for rows in (alone, mixed, shuffled):
        assert sorted(rows.ravel().tolist()) == list(range(len(lengths)))


@pytest.mark.parametrize("grouped", [True, False])
def test_an_order_follows_from_settings_seed_and_epoch_alone(grouped: bool) -> None:
    lengths, classes = long_and_short(330)
    settings = Training(batch_size=BATCH, group_by_length=grouped)
    order, other = (order_of(settings, lengths, seed, classes) for seed in (1, 2))
    first = list(order)
    assert isinstance(order, LengthGrouped if grouped else Shuffled)
    assert list(order_of(settings, lengths, 1, classes)) == first != list(other)
    order.epoch = 1
    assert len(order) == len(first) == 330
    assert sorted(order) == sorted(first)
    assert list(order) != first


def test_rows_have_the_classes_that_their_task_says() -> None:
    texts = ("good film", "bad plot", "a film")
    codes = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    rows = tokenize(Split(texts, None, codes), tiny_tokenizer(), 8)
    assert rows.classes(MultiLabel(("a", "b", "c"))).tolist() == [0, 1, 3]  # the rarest label; none
    rows = tokenize(Split(texts, None, codes[:, 0]), tiny_tokenizer(), 8)
    assert rows.classes(Classification(("a", "b"))).tolist() == [1, 0, 0]
    assert rows.classes(Regression(0.0, 5.0)) is None
    assert tokenize(Split(texts, None, None), tiny_tokenizer(), 8).classes(Classification(("a", "b"))) is None


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_an_order_takes_four_bytes_a_row_and_is_that_of_numpy(rows: int) -> None:
    found = permutation(rows, np.random.default_rng(3))
    assert found.nbytes == 4 * rows
    np.testing.assert_array_equal(found, np.random.default_rng(3).permutation(rows))
    assert list(Shuffled(rows, 3)) == np.random.default_rng([3, 0]).permutation(rows).tolist()


def test_rows_that_are_random_already_come_by_their_numbers() -> None:
    assert list(InOrder(4)) == [0, 1, 2, 3]
    assert len(InOrder(4)) == 4
