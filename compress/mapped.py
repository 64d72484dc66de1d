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
TOGETHER = 1000  # texts read at once


class MappedColumn:
    """An array that is written part after part, and then read."""

    def __init__(self, kind: type[np.generic]) -> None:
        self.kind = np.dtype(kind)
        self._file = tempfile.SpooledTemporaryFile(SMALL)  # noqa: SIM115 - closed by `mapped`

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


class StoredTexts(Sequence[str]):
    """Texts in order, as UTF-8 in a file. Equal to any sequence of the same texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        written, ends = MappedColumn(np.uint8), MappedColumn(np.int64)
        end = 0
        ends.append([0])
        for text in texts:
            part = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
            written.append(part)
            end += len(part)
            ends.append([end])
        self._bytes, self._ends = written.mapped(), ends.mapped()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        """Return one text, or the texts of a slice as a tuple."""
        if isinstance(place, slice):
            return tuple(self[row] for row in range(*place.indices(len(self))))
        row = range(len(self))[place]  # raises IndexError, counts from the end
        return self._bytes[self._ends[row] : self._ends[row + 1]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), TOGETHER):
            yield from self[start : start + TOGETHER]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"StoredTexts({', '.join(map(repr, self[:3]))}{', …' if len(self) > 3 else ''})"
