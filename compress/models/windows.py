"""Rows whose second text is longer than a model takes, read in windows of it that overlap.

Each window has the whole first text and a part of the second, between the same special tokens as the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.mapped import mapped
from compress.tasks.base import Array, Task

SHARE = 3  # of a window overlaps with the next where nothing else is asked for


@dataclass(frozen=True)
class Window:
    """The tokens of a window by their places in the whole row, and which characters of the second text they are.

    ``extents`` (tokens, 2): (0, 0) for the one token that stands for no answer, -1 for tokens that are not read.
    """

    places: Array
    extents: Array


def windows_of(encoding: Any, second: str, most: int, overlap: int | None) -> tuple[list[Window], bool]:
    """Return a row's windows of at most ``most`` tokens, and whether its first text had to be cut.

    ``encoding`` is the ``tokenizers`` package's, of the whole row. Neighbouring windows share ``overlap`` tokens of the
    second text, or a third of what there is room for; in any case at most half of that. Of a first text that leaves the
    second one less than half of a window, the end is cut.
    """
    sides = np.array([-1 if side is None else side for side in encoding.sequence_ids])
    inside = np.flatnonzero(sides == 1)
    begin, end = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (len(sides), len(sides))
    before, after = np.arange(begin), np.arange(end, len(sides))
    first = before[sides[before] == 0]
    spare = most - most // 2 - len(before) - len(after)
    cut = first[max(0, len(first) + spare) :] if spare < 0 else first[:0]
    before = np.setdiff1d(before, cut)
    extents = np.full((len(sides), 2), -1, dtype=np.int32)
    for place in inside:
        extents[place] = trimmed(second, *encoding.offsets[place])
    extents[0] = 0
    room = max(1, most - len(before) - len(after))
    shared = min(room // SHARE if overlap is None else overlap, room // 2)
    made = []
    for start in range(begin, max(begin + 1, end - shared), room - shared):
        places = np.concatenate([before, np.arange(start, min(start + room, end)), after])
        made.append(Window(places, extents[places]))
    return made, bool(len(cut))


def trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    """Return the characters of a token without white space at its ends; -1 for a token without any other."""
    while start < stop and text[start].isspace():
        start += 1
    while start < stop and text[stop - 1].isspace():
        stop -= 1
    return (start, stop) if start < stop else (-1, -1)


@dataclass(frozen=True)
class Windows:
    """Which rows windows are of, and the characters of their tokens; all arrays as `Tokens` has its columns."""

    task: type[Task]  # that has the windows
    origin: Array  # (windows,): the row of the split, ascending
    offsets: Array  # (windows + 1,): where the tokens of each window begin
    extents: Array  # (tokens, 2), as `Window.extents`

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.origin[-1]) + 1 if len(self.origin) else 0

    def of_row(self, row: int) -> list[int]:
        """Return the numbers of a row's windows."""
        first, stop = np.searchsorted(self.origin, [row, row + 1])
        return list(range(int(first), int(stop)))

    def extents_of(self, window: int) -> Array:
        """Return the characters of a window's tokens (tokens, 2)."""
        return self.extents[self.offsets[window] : self.offsets[window + 1]]

    def take(self, chosen: Array, places: Array) -> Windows:
        """Return these windows, whose tokens are at ``places``; their rows are numbered from 0 in the same order."""
        lengths = np.diff(self.offsets)[chosen]
        origin = np.unique(self.origin[chosen], return_inverse=True)[1]
        return replace(
            self, origin=origin, offsets=np.concatenate([[0], np.cumsum(lengths)]), extents=self.extents[places]
        )

    def answering(self, chosen: Sequence[int] | Array, width: int) -> Array:
        """Return which tokens of windows are read (batch, tokens), 0 or 1."""
        read = np.zeros((len(chosen), width), dtype=np.int64)
        for place, window in enumerate(chosen):
            extents = self.extents_of(window)
            read[place, : len(extents)] = extents[:, 0] >= 0
        return read

    def labels(self, labels: Array, chosen: Array, width: int, missing: int) -> Array:
        """Return the labels by token (batch, tokens) of windows, from those of the rows; ``missing`` for padding."""
        found = np.full((len(chosen), width), missing, dtype=np.int64)
        for place, window in enumerate(chosen):
            marks = self.task.marks(labels[self.origin[window]], self.extents_of(window))
            found[place, : len(marks)] = marks
        return found

    def gathered(self, parts: Iterable[tuple[Array | list[int], Array]]) -> Array:
        """Return logits of rows (rows, positions, 4): `compress.tasks.span_decoding` says which."""
        positions = [int((self.extents_of(window)[:, 0] >= 0).sum()) for window in range(len(self.origin))]
        ends = np.concatenate([[0], np.cumsum(positions)])
        firsts = np.searchsorted(self.origin, np.arange(self.rows + 1))
        width = int(np.diff(ends[firsts]).max(initial=0))
        whole = np.zeros((self.rows, width, 4), dtype=np.float32)
        whole[:, :, 2:] = -1
        for window, values in self._read(parts):
            row = int(self.origin[window])
            start = int(ends[window] - ends[firsts[row]])
            whole[row, start : start + len(values)] = values
        return whole

    def _read(self, parts: Iterable[tuple[Array | list[int], Array]]) -> Iterator[tuple[int, Array]]:
        for chosen, logits in parts:
            for window, values in zip(chosen, logits, strict=True):
                extents = self.extents_of(window)
                read = extents[:, 0] >= 0
                yield window, np.concatenate([values[: len(extents)][read], extents[read]], axis=1)


def stored(task: type[Task], origin: Sequence[int], offsets: Array, extents: Array) -> Windows:
    """Return windows; ``extents`` are flat."""
    return Windows(task, mapped(np.asarray(origin, dtype=np.int64)), offsets, extents.reshape(-1, 2))
