"""The order in which training visits rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

Array = np.ndarray[Any, Any]
STRETCH = 50  # batches within which rows are sorted by length


class Order(Sampler[int]):
    """The order of rows in an epoch, one batch after another; depends only on its arguments and ``epoch``."""

    epoch: int = 0

    def __len__(self) -> int:
        raise NotImplementedError(type(self).__name__)


class LengthGrouped(Order):
    """All rows once per epoch: shuffled, then sorted by length within stretches of 50 batches, batches shuffled.

    Where rows have ``groups``, numbers or NaN for none, batches hold whole groups wherever these fit.

    The order depends on the seed and the epoch alone, so a resumed run sees the same batches.
    """

    def __init__(self, lengths: Array, batch_size: int, seed: int, groups: Array | None = None) -> None:
        self.lengths, self.batch_size, self.seed, self.groups = lengths, batch_size, seed, groups

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        return grouped_by_length(self.lengths, self.batch_size, generator, self.groups)


def grouped_by_length(
    lengths: Array, batch_size: int, generator: np.random.Generator, groups: Array | None = None
) -> Iterator[int]:
    """Yield all rows once, in the order that `LengthGrouped` describes."""
    stretches = (
        _by_length(lengths, batch_size, generator) if groups is None else _whole(lengths, groups, batch_size, generator)
    )
    batches = [part[i : i + batch_size] for part in stretches for i in range(0, len(part), batch_size)]
    short = [batch for batch in batches if len(batch) < batch_size]  # at most one; it comes last
    full = [batch for batch in batches if len(batch) == batch_size]
    generator.shuffle(full)
    for batch in full + short:
        yield from (int(row) for row in batch)


def _by_length(lengths: Array, batch_size: int, generator: np.random.Generator) -> Iterator[Array]:
    """Yield stretches of `STRETCH` batches, each in random rows from long to short."""
    order = generator.permutation(len(lengths))
    for start in range(0, len(order), STRETCH * batch_size):
        part = order[start : start + STRETCH * batch_size]
        yield part[np.argsort(-lengths[part], kind="stable")]


def _whole(lengths: Array, groups: Array, batch_size: int, generator: np.random.Generator) -> Iterator[Array]:
    """Yield one stretch of all rows, in which each batch holds whole groups, as far as these fit.

    Groups come in random order, within `STRETCH` batches from long to short; a batch that has room left takes the
    next group that fits, and only where none does is a group divided between it and the next. A group's rows are in
    random order, so that the parts of one that is larger than a batch are drawn at random.
    """
    alone = np.isnan(groups)
    numbers = np.where(alone, -1.0 - np.arange(len(groups)), groups)
    order = np.lexsort((generator.random(len(numbers)), numbers))
    parts = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    shuffled = [parts[place] for place in generator.permutation(len(parts))]
    found: list[Array] = []
    waiting: list[Array] = []
    room, rows = batch_size, 0

    def emptied() -> None:
        nonlocal room, rows
        waiting.sort(key=lambda part: -int(lengths[part].max()))
        while waiting:
            place = next((i for i, part in enumerate(waiting) if len(part) <= room), 0)
            part = waiting.pop(place)
            found.append(part)
            room = (room - len(part)) % batch_size or batch_size
        rows = 0

    for part in shuffled:
        waiting.append(part)
        rows += len(part)
        if rows >= STRETCH * batch_size:
            emptied()
    emptied()
    yield np.concatenate(found)
