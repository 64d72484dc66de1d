"""Batches of one task each, tasks drawn by their sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.models.tokens import Groups, Tokens
from compress.tasks.base import Array
from compress.train import Order, grouped_by_length


class TaskRows:
    """The rows of several tasks behind each other, or groups of rows; a batch is of one task and knows which."""

    def __init__(self, tasks: Sequence[Tokens | Groups]) -> None:
        self.tasks = tasks
        self.starts = np.concatenate([[0], np.cumsum([len(tokens) for tokens in tasks])])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, row: int) -> int:
        return row

    @property
    def lengths(self) -> Array:
        """Tokens per row, special ones included."""
        return np.concatenate([tokens.lengths for tokens in self.tasks])

    @property
    def words(self) -> Array:
        """The pieces of the vocabulary that any row has."""
        return np.unique(np.concatenate([tokens.words for tokens in self.tasks]))

    def batch(self, rows: list[int]) -> dict[str, Tensor]:
        """Return the batch of `Tokens` of the rows' task, with its own row numbers, and the task's number in ``task``.

        Raises ValueError for rows of several tasks.
        """
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        task = int(numbers[0])
        if (numbers != task).any():
            raise ValueError(f"a batch is of one task; these rows are of {sorted(set(numbers.tolist()))}")
        own = self.tasks[task].batch(np.asarray(rows) - self.starts[task])
        return own | {"task": torch.full((len(own["rows"]),), task)}


def shares(rows: Sequence[int], exponent: float) -> Array:
    """Return the probability of each task, proportional to its rows to the power of ``exponent``."""
    weights: Array = np.asarray(rows, dtype=np.float64) ** exponent
    probabilities: Array = weights / weights.sum()
    return probabilities


class ByTask(Order):
    """Batches of one task each; the task of each is drawn with the probability that `shares` gives.

    An epoch has as many batches as all rows make. A task's rows come in an order of their own, shuffled and, where
    ``grouped``, by length as `LengthGrouped` has it, and again when they are used up; so every batch is full, and
    one task may be seen more often in an epoch than another. All depends on the seed and the epoch alone.
    """

    def __init__(
        self,
        lengths: Sequence[Array],
        batch_size: int,
        exponent: float,
        seed: int,
        *,
        classes: Sequence[Array | None] = (),
        grouped: bool = True,
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.grouped = lengths, batch_size, seed, grouped
        self.classes = classes or [None] * len(lengths)
        self.sizes = [len(own) for own in lengths]
        self.shares = shares(self.sizes, exponent)

    def __len__(self) -> int:
        return -(-sum(self.sizes) // self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        rows = [self._rows(task) for task in range(len(self.sizes))]
        for task in self.tasks():
            for _ in range(self.batch_size):
                yield int(starts[task]) + next(rows[task])

    def tasks(self) -> Array:
        """Return the number of the task of each batch of the epoch."""
        generator = np.random.default_rng([self.seed, self.epoch])
        drawn: Array = generator.choice(len(self.sizes), len(self) // self.batch_size, p=self.shares)
        return drawn

    def _rows(self, task: int) -> Iterator[Any]:
        generator = np.random.default_rng([self.seed, self.epoch, task])
        while True:
            if self.grouped:
                yield from grouped_by_length(self.lengths[task], self.batch_size, generator, self.classes[task])
            else:
                yield from generator.permutation(self.sizes[task]).tolist()
