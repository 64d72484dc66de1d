"""Which rows are equal: found by a number for each row, in passes of bounded memory over files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from compress.mapped import PART, MappedColumn, blank
from compress.tasks.base import Array

TOGETHER = 1000  # numbers written at once


def numbers_of(texts: Iterable[str]) -> Array:
    """Return a number for each text (texts,), uint64, that equal texts share: 64 bits of BLAKE2b.

    Among ten million different texts, two share one by chance about once in 400,000 data sets.
    """
    column = MappedColumn(np.uint64)
    waiting: list[bytes] = []
    for text in texts:
        waiting.append(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        if len(waiting) == TOGETHER:
            column.append(np.frombuffer(b"".join(waiting), "<u8"))
            waiting.clear()
    column.append(np.frombuffer(b"".join(waiting), "<u8"))
    return column.mapped()


@dataclass(frozen=True)
class Repeats:
    """The rows that share their number with one before them."""

    first: Array  # (rows,): the place of the first row with the same number
    count: Array  # (rows,): on a first row, how many rows share its number; 0 on the others

    @classmethod
    def of(cls, numbers: Array) -> Repeats:
        """Return those among rows with these numbers (rows,)."""
        first, count = blank(len(numbers), np.int64), blank(len(numbers), np.int64)
        for (rows,) in _passes(numbers):
            _, where, inverse, counts = np.unique(
                numbers[rows], return_index=True, return_inverse=True, return_counts=True
            )
            first[rows] = rows[where][inverse]
            count[rows[where]] = counts
        return cls(first, count)

    def leaders(self) -> Array:
        """Return the places of the rows that are the first with their number, ascending, in a file."""
        column = MappedColumn(np.int64)
        for start in range(0, len(self.count), PART):
            column.append(start + np.flatnonzero(self.count[start : start + PART]))
        return column.mapped()

    def followers(self) -> Iterator[tuple[Array, Array]]:
        """Yield the places of rows that are not the first with their number, and those of the first, part by part."""
        for start in range(0, len(self.first), PART):
            rows = start + np.flatnonzero(self.count[start : start + PART] == 0)
            yield rows, self.first[rows]


def among(numbers: Array, others: Array) -> Array:
    """Return which of ``numbers`` (rows,) are among ``others`` too, as a column of 0 and 1 (rows,)."""
    found = blank(len(numbers), np.uint8)
    for rows, places in _passes(numbers, others):
        found[rows] = np.isin(numbers[rows], others[places])
    return found


def _passes(*columns: Array) -> Iterator[tuple[Array, ...]]:
    """Yield the places of some numbers of each column, equal ones in one pass, ascending; about `PART` at most."""
    passes = max(1, -(-max(map(len, columns)) // PART))
    for turn in range(passes):
        yield tuple(_turn(column, turn, passes) for column in columns)


def _turn(numbers: Array, turn: int, passes: int) -> Array:
    if passes == 1:
        return np.arange(len(numbers))
    return np.concatenate(
        [
            start + np.flatnonzero(numbers[start : start + PART] % np.uint64(passes) == turn)
            for start in range(0, len(numbers), PART)
        ]
    )
