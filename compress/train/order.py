"""The order in which training visits rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler


class Order(Sampler[int]):
    """The order of rows in an epoch, one batch after another; depends only on its arguments and ``epoch``."""

    epoch: int = 0

    def __len__(self) -> int:
        raise NotImplementedError(type(self).__name__)


class LengthGrouped(Order):
    """All rows once per epoch: shuffled, then sorted by length within groups of 50 batches, batches shuffled.

    The order depends on the seed and the epoch alone, so a resumed run sees the same batches.
    """

    def __init__(self, lengths: np.ndarray[Any, Any], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return grouped_by_length(self.lengths, self.batch_size, np.random.default_rng([self.seed, self.epoch]))


def grouped_by_length(lengths: np.ndarray[Any, Any], batch_size: int, generator: np.random.Generator) -> Iterator[int]:
    """Yield all rows once, in the order that `LengthGrouped` describes."""
    order = generator.permutation(len(lengths))
    group = 50 * batch_size
    for start in range(0, len(order), group):
        part = order[start : start + group]
        order[start : start + group] = part[np.argsort(-lengths[part], kind="stable")]
    full = len(order) // batch_size
    batches = np.arange(full)
    generator.shuffle(batches)
    for batch in batches:
        yield from order[batch * batch_size : (batch + 1) * batch_size].tolist()
    yield from order[full * batch_size :].tolist()  # the short one, if any, comes last
