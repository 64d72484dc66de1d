"""What a tensor's values were, in memory that does not grow with their number."""

from __future__ import annotations

import math

import numpy as np

from compress.tasks.base import Array

BINS = 4096  # of which values and 0 together span at least half
SMALLEST = -126  # the exponent of the finest bins: of the smallest normal number in fp32


class Histogram:
    """Counts of values in bins of one width, which doubles where the range outgrows them.

    Widths are powers of two and bins begin at whole multiples of the width, so two bins join into exactly one of
    twice the width: whatever came first, the counts are those of all values put into the last bins at once. 0 always
    has a bin, as it has an integer.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.counts: Array = np.zeros(bins, np.int64)
        self.exponent = SMALLEST  # of the width
        self.first = 0  # number of the first bin: it begins at first · width
        self.low, self.high = math.inf, -math.inf  # of the values themselves

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    def add(self, values: Array) -> None:
        """Count the values (any shape). Raises ValueError where one is not finite."""
        values = values.astype(np.float64).ravel()
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("a value is not finite")
        self.low, self.high = min(low, self.low), max(high, self.high)
        self._hold(min(self.low, 0.0), max(self.high, 0.0))
        places = np.floor(np.ldexp(values, -self.exponent)).astype(np.int64) - self.first
        self.counts += np.bincount(places, minlength=len(self.counts))

    def _hold(self, low: float, high: float) -> None:
        """Make room for values from ``low`` to ``high``."""
        exponent = self.exponent
        while _bin(high, exponent) - _bin(low, exponent) >= len(self.counts):
            exponent += 1
        first = _bin(low, exponent)
        if exponent != self.exponent or first != self.first:
            used = np.flatnonzero(self.counts)
            moved = np.zeros_like(self.counts)
            places = np.right_shift(used + self.first, min(exponent - self.exponent, 63)) - first
            np.add.at(moved, places, self.counts[used])
            self.counts, self.exponent, self.first = moved, exponent, first

    def filled(self) -> tuple[Array, int]:
        """Return the counts from the first to the last bin that holds a value or 0, and the number of the first."""
        last = _bin(max(self.high, 0.0), self.exponent)
        return self.counts[: last - self.first + 1], self.first

    def folded(self) -> tuple[Array, int]:
        """Return the counts of absolute values, from the bin at 0 on, and 0, that bin's number."""
        counts, first = self.filled()
        numbers = np.arange(first, first + len(counts))
        numbers = np.where(numbers < 0, -numbers - 1, numbers)
        return np.bincount(numbers, weights=counts).astype(np.int64), 0


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))
