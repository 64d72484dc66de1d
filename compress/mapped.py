"""Columns in files that the system maps into memory as they are read: rows cost the process no memory of its own.

The files have no name: they vanish with the last reference, or with the process. What is small stays in memory, for an
open file costs a process one of its few file numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from compress.tasks.base import Array

SMALL = 2**20  # bytes of a column that needs no file
TOGETHER = 1000  # texts written or read at once
PART = 2**20  # rows of a column that are in memory at once
SPREAD = 4  # texts are read together where no more bytes than so many times their own lie between them


class MappedColumn:
    """An array that is written part after part, and then read."""

    def __init__(self, kind: type[np.generic]) -> None:
        self.kind = np.dtype(kind)
        self._file = tempfile.SpooledTemporaryFile(SMALL)  # noqa: SIM115 - closed by `mapped`

    def __del__(self) -> None:
        """Close the file of a column that nobody came to read."""
        self._file.close()

    def append(self, part: Any) -> None:
        """Write one more part, (n,)."""
        self._file.write(np.ascontiguousarray(part, self.kind).data)

    def mapped(self) -> Array:
        """Return all parts, one after the other, read-only; nothing can be appended any more."""
        with self._file as file:
            file.flush()
            if file.tell() > SMALL:
                return np.memmap(file, self.kind, "r", shape=(file.tell() // self.kind.itemsize,))
            file.seek(0)
            return np.frombuffer(file.read(), self.kind)


def mapped(values: Array) -> Array:
    """Return the same numbers, (n,), read-only."""
    column = MappedColumn(values.dtype.type)
    column.append(values)
    return column.mapped()


class NumberColumn:
    """Whole numbers that are written one after the other, and then read."""

    def __init__(self) -> None:
        self._column, self._waiting = MappedColumn(np.int64), list[int]()

    def append(self, number: int) -> None:
        """Write the next number."""
        self._waiting.append(number)
        if len(self._waiting) == TOGETHER:
            self._column.append(self._waiting)
            self._waiting.clear()

    def stored(self) -> Array:
        """Return all numbers, (n,), read-only; nothing can be appended any more."""
        self._column.append(self._waiting)
        return self._column.mapped()


def blank(rows: int, kind: type[np.generic]) -> Array:
    """Return zeros, (rows,), to be written in any order."""
    if rows * np.dtype(kind).itemsize <= SMALL:
        return np.zeros(rows, kind)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, kind, "w+", shape=(rows,))


def picked(column: Array, rows: Array) -> Array:
    """Return the numbers of a column at these places, (n,), read-only."""
    found = MappedColumn(column.dtype.type)
    for first in range(0, len(rows), PART):
        found.append(column[rows[first : first + PART]])
    return found.mapped()


class TextColumn:
    """Texts that are written one after the other, and then read."""

    def __init__(self) -> None:
        self._bytes, self._starts, self._stops = MappedColumn(np.uint8), MappedColumn(np.int64), MappedColumn(np.int64)
        self._waiting: list[bytes] = []
        self._end = self._written = 0

    def __len__(self) -> int:
        return self._written + len(self._waiting)

    def append(self, text: str) -> None:
        """Write one more text."""
        self._waiting.append(text.encode("utf-8", "surrogatepass"))
        if len(self._waiting) == TOGETHER:
            self._write()

    def stored(self) -> StoredTexts:
        """Return all texts; nothing can be appended any more."""
        return StoredTexts._of(*self.parts())

    def parts(self) -> tuple[Array, Array, Array]:
        """Return the bytes of all texts, and where in them each begins and ends."""
        self._write()
        return self._bytes.mapped(), self._starts.mapped(), self._stops.mapped()

    def _write(self) -> None:
        stops = self._end + np.cumsum([len(text) for text in self._waiting], dtype=np.int64)
        self._bytes.append(np.frombuffer(b"".join(self._waiting), np.uint8))
        self._starts.append(np.concatenate([[self._end], stops[:-1]])[: len(stops)])
        self._stops.append(stops)
        self._end, self._written = int(stops[-1]) if len(stops) else self._end, self._written + len(stops)
        self._waiting.clear()


class StoredTexts(Sequence[str]):
    """Texts in order, as UTF-8 in a file. Equal to any sequence of the same texts."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        column = TextColumn()
        for text in texts:
            column.append(text)
        self._bytes, self._starts, self._stops = column.parts()

    @classmethod
    def _of(cls, content: Array, starts: Array, stops: Array) -> StoredTexts:
        """Return the texts between these places of ``content``."""
        made = cls.__new__(cls)
        made._bytes, made._starts, made._stops = content, starts, stops
        return made

    def take(self, rows: Array | Sequence[int]) -> StoredTexts:
        """Return the texts at these places, in this order; what is written of them is not written again."""
        places = np.asarray(rows, dtype=np.int64)
        return self._of(self._bytes, picked(self._starts, places), picked(self._stops, places))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        """Return one text, or the texts of a slice as a tuple."""
        if isinstance(place, slice):
            return tuple(self._read(self._starts[place], self._stops[place]))
        row = range(len(self))[place]  # raises IndexError, counts from the end
        (text,) = self._read(self._starts[row : row + 1], self._stops[row : row + 1])
        return text

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), TOGETHER):
            yield from self[start : start + TOGETHER]

    def _read(self, starts: Array, stops: Array) -> list[str]:
        """Return the texts between these places; those that lie near each other are read together."""
        if not len(starts):
            return []
        low, high = int(starts.min()), int(stops.max())
        if high - low <= SPREAD * int((stops - starts).sum()):
            whole = self._bytes[low:high].tobytes()
            parts = [whole[a:b] for a, b in zip((starts - low).tolist(), (stops - low).tolist(), strict=True)]
        else:
            parts = [self._bytes[a:b].tobytes() for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        return [part.decode("utf-8", "surrogatepass") for part in parts]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"StoredTexts({', '.join(map(repr, self[:3]))}{', …' if len(self) > 3 else ''})"
