"""Rows from a source: texts and label words, with the place where each was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from compress.data.equal_rows import numbers_of
from compress.mapped import StoredTexts, mapped, picked
from compress.tasks.base import Array


def folded(text: str) -> str:
    """Return the text with case and white space folded; equal texts share it."""
    return " ".join(text.casefold().split())


def key_of(first: str, second: str | None = None) -> str:
    """Return a key that equal rows share: the folded text, or both folded texts in either order."""
    return folded(first) if second is None else "\x00".join(sorted((folded(first), folded(second))))


def row_id(part: str, record: int) -> str:
    """Return what names a row of a source without ids: its part of the data, and its place there, from 0."""
    return f"{part} {record}"


@dataclass(frozen=True)
class Columns:
    """How the columns of a file or a split were read."""

    header: str  # the origin of their names, in words
    text: str
    pair: str | None
    label: str | None
    label_columns: tuple[str, ...] = ()  # 0/1 columns, one for each label
    ignored: tuple[str, ...] = ()
    named: bool = True  # whether the file has these names
    group: str | None = None  # the column that says which rows belong together


@dataclass(frozen=True)
class Rows:
    """One split with its labels as words. Texts, labels and numbers are on disk."""

    source: str  # the file or split, for messages; files: their pattern
    texts: Sequence[str]
    pairs: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    numbers: Array | Sequence[int] = ()  # 1-based line or row of each text, in all files; empty: counted from 1
    unit: str = "row"  # what `numbers` count
    columns: Columns | None = None
    form: str = ""  # the task that alone has rows written like these; empty: any may
    groups: Sequence[str] | None = (
        None  # names of the rows' groups, such as queries, for tasks that compare within them
    )
    ids: Sequence[str] = ()  # what names each row, as data.id does; empty: nothing does yet
    records: Array | Sequence[int] = ()  # the place of each among all records of the source, from 0; empty: counted
    files: tuple[tuple[int, str], ...] = ()  # number before the first of each file, and its name; empty: the source

    def __post_init__(self) -> None:
        for name in ("texts", "pairs", "labels", "groups", "ids"):
            texts = getattr(self, name)
            if texts is not None and not isinstance(texts, StoredTexts):
                object.__setattr__(self, name, StoredTexts(texts))
        for name in ("numbers", "records"):
            object.__setattr__(self, name, stored_numbers(getattr(self, name)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.texts)

    def place(self, index: int) -> str:
        """Return the origin of a row, for a message."""
        number = int(self.numbers[index]) if len(self.numbers) else index + 1
        before, file = max(((before, file) for before, file in self.files if before < number), default=(0, self.source))
        return f"{file}, {self.unit} {number - before}"

    def named(self, part: str) -> Rows:
        """Return the rows with ids: their own, or ``part`` and the place of each in the source, as "train 0"."""
        if self.ids:
            return self
        records = map(int, self.records) if len(self.records) else range(len(self))
        return replace(self, ids=StoredTexts(row_id(part, record) for record in records))

    @property
    def words(self) -> Sequence[str]:
        """The labels; raises ValueError on unlabelled rows."""
        if self.labels is None:
            raise ValueError("these rows have no labels")
        return self.labels

    @cached_property
    def keys(self) -> Array:
        """A number for each row (rows,) that equal rows share: `numbers_of` their `key_of`."""
        if self.pairs is None:
            return numbers_of(map(key_of, self.texts))
        return numbers_of(map(key_of, self.texts, self.pairs))

    def take(self, indices: Array) -> Rows:
        """Return the rows at these positions, in this order."""
        stored = {name: getattr(self, name) for name in ("texts", "pairs", "labels", "groups", "ids")}
        taken: dict[str, Any] = {name: texts and texts.take(indices) for name, texts in stored.items()}
        numbers = (
            picked(stored_numbers(self.numbers), indices) if len(self.numbers) else mapped(np.asarray(indices) + 1)
        )
        records = picked(stored_numbers(self.records), indices) if len(self.records) else ()
        rows = replace(self, **taken, numbers=numbers, records=records)
        if "keys" in self.__dict__:
            rows.__dict__["keys"] = picked(self.keys, indices)
        return rows


def stored_numbers(numbers: Array | Sequence[int]) -> Array:
    """Return whole numbers in order, in a file."""
    return numbers if isinstance(numbers, np.ndarray) else mapped(np.asarray(numbers, dtype=np.int64))
