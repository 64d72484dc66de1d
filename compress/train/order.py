"""The order in which training visits rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from compress.mapped import PART
from compress.tasks.base import Array
from compress.train.settings import Training


class Order(Sampler[int]):
    """The order of rows in an epoch, one batch after another; depends only on its arguments and ``epoch``."""

    epoch: int = 0

    def __len__(self) -> int:
        raise NotImplementedError(type(self).__name__)


class Shuffled(Order):
    """All rows once per epoch, in random order."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed = rows, seed

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        order = permutation(self.rows, np.random.default_rng([self.seed, self.epoch]))
        for start in range(0, self.rows, PART):
            yield from order[start : start + PART].tolist()


class InOrder(Order):
    """All rows by their numbers, for rows that are random already."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rows))


class LengthGrouped(Order):
    """All rows once per epoch: shuffled, then sorted by length within groups of 50 batches, batches shuffled.

    Where ``classes`` (rows,) are given, a row's place in its group is half way between its place by length among all
    of them and that among its class: lengths differ by class, and a batch of one length would be of few classes.

    The order depends on the seed and the epoch alone, so a resumed run sees the same batches.
    """

    def __init__(self, lengths: Array, batch_size: int, seed: int, classes: Array | None = None) -> None:
        self.lengths, self.batch_size, self.seed, self.classes = lengths, batch_size, seed, classes

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        return grouped_by_length(self.lengths, self.batch_size, generator, self.classes)


def order_of(settings: Training, lengths: Array, seed: int, classes: Array | None = None) -> Order:
    """Return the order that the settings ask for, of rows with these lengths and classes."""
    if settings.group_by_length:
        return LengthGrouped(lengths, settings.batch_size, seed, classes)
    return Shuffled(len(lengths), seed)


def grouped_by_length(
    lengths: Array, batch_size: int, generator: np.random.Generator, classes: Array | None = None
) -> Iterator[int]:
    """Yield all rows once, in the order that `LengthGrouped` describes."""
    order = permutation(len(lengths), generator)
    group = 50 * batch_size
    for start in range(0, len(order), group):
        part = order[start : start + group]
        places = _places(lengths[part])
        if classes is not None:
            of_class = classes[part]
            for number in np.unique(of_class):
                own = of_class == number
                places[own] += _places(lengths[part[own]])
        order[start : start + group] = part[np.argsort(places, kind="stable")]
    full = len(order) // batch_size
    batches = np.arange(full)
    generator.shuffle(batches)
    for batch in batches:
        yield from order[batch * batch_size : (batch + 1) * batch_size].tolist()
    yield from order[full * batch_size :].tolist()  # the short one, if any, comes last


def permutation(rows: int, generator: np.random.Generator) -> Array:
    """Return the numbers of all rows in random order, 4 bytes each where they are not too many for that."""
    order = np.arange(rows, dtype=np.uint32 if rows < 2**32 else np.int64)
    generator.shuffle(order)
    return order


def _places(lengths: Array) -> Array:
    """Return the place of each row by its length, the longest first, as a share of all from 0 to 1."""
    places = np.empty(len(lengths))
    places[np.argsort(-lengths, kind="stable")] = (np.arange(len(lengths)) + 0.5) / max(len(lengths), 1)
    return places
