"""Batches of one task each: whole, drawn by rows to a power, the same for the same seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.distill.task_batches import ByTask, TaskRows, shares
from tests.test_train import tokens

SIZES = (1000, 200, 50)


def order(exponent: float = 0.75, batch_size: int = 10, sizes: tuple[int, ...] = SIZES) -> ByTask:
    generator = np.random.default_rng(0)
    return ByTask([generator.integers(3, 60, size) for size in sizes], batch_size, exponent, seed=5)


def test_shares_are_rows_to_the_power_by_a_loop() -> None:
    weights = [size**0.75 for size in SIZES]
    assert shares(SIZES, 0.75).tolist() == pytest.approx([weight / sum(weights) for weight in weights])
    assert shares(SIZES, 0.0).tolist() == pytest.approx([1 / 3] * 3)
    assert shares(SIZES, 1.0).tolist() == pytest.approx([0.8, 0.16, 0.04])


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0])
def test_tasks_are_drawn_as_often_as_their_shares_say(exponent: float) -> None:
    batches = order(exponent)
    counts = np.zeros(3)
    for batches.epoch in range(80):
        counts += np.bincount(batches.tasks(), minlength=3)
    drawn, expected = counts.sum(), shares(SIZES, exponent)
    assert drawn == 80 * 125
    assert (np.abs(counts / drawn - expected) < 5 * np.sqrt(expected * (1 - expected) / drawn)).all()


def test_every_batch_is_full_and_of_one_task() -> None:
    batches = order()
    rows = np.array(list(batches)).reshape(-1, 10)
    assert rows.size == len(batches) == 1250
    numbers = np.searchsorted(np.cumsum(SIZES), rows, side="right")
    assert (numbers == numbers[:, :1]).all()
    assert (numbers[:, 0] == batches.tasks()).all()


def test_a_task_starts_again_only_when_its_rows_are_used_up() -> None:
    batches = order(exponent=0.0)
    rows = np.array(list(batches))
    for start, size in zip((0, 1000, 1200), SIZES, strict=True):
        own = rows[(rows >= start) & (rows < start + size)]
        for first in range(0, len(own), size):
            part = own[first : first + size]
            assert len(set(part.tolist())) == len(part)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, same, next_epoch = order(), order(), order()
    next_epoch.epoch = 1
    assert list(first) == list(same) == list(first)
    assert list(first) != list(next_epoch)


def test_a_task_smaller_than_a_batch_fills_it_with_its_rows_again() -> None:
    rows = list(order(exponent=0.0, batch_size=8, sizes=(40, 3)))
    small = [row for row in rows if row >= 40]
    assert small
    assert len(small) % 8 == 0
    assert set(small) == {40, 41, 42}


def test_a_batch_is_its_tasks_own_with_its_number() -> None:
    tasks = [tokens(20, 1), tokens(12, 2)]
    rows = TaskRows(tasks)
    assert len(rows) == 32
    assert rows.lengths.tolist() == [*tasks[0].lengths, *tasks[1].lengths]
    batch, own = rows.batch([21, 31, 20]), tasks[1].batch([1, 11, 0])
    assert batch.pop("task").tolist() == [1, 1, 1]
    assert batch.keys() == own.keys()
    assert all(torch.equal(batch[name], own[name]) for name in own)
    with pytest.raises(ValueError, match="a batch is of one task"):
        rows.batch([19, 20])
