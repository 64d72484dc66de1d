"""Rows from a source: texts and label words, with the place where each was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

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
    """One split with its labels as words."""

    source: str  # the file or split, for messages
    texts: Sequence[str]
    pairs: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    numbers: Sequence[int] = ()  # 1-based line or row of each text; empty: counted from 1
    unit: str = "row"  # what `numbers` count
    columns: Columns | None = None
    form: str = ""  # the task that alone has rows written like these; empty: any may
    groups: Sequence[str] | None = (
        None  # names of the rows' groups, such as queries, for tasks that compare within them
    )
    ids: Sequence[str] = ()  # what names each row, as data.id does; empty: nothing does yet
    records: Sequence[int] = ()  # the place of each among all records of the source, from 0; empty: counted

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.texts)

    def place(self, index: int) -> str:
        """Return the origin of a row, for a message."""
        return f"{self.source}, {self.unit} {self.numbers[index] if self.numbers else index + 1}"

    def named(self, part: str) -> Rows:
        """Return the rows with ids: their own, or ``part`` and the place of each in the source, as "train 0"."""
        if self.ids:
            return self
        return replace(self, ids=[row_id(part, record) for record in self.records or range(len(self))])

    @property
    def words(self) -> Sequence[str]:
        """The labels; raises ValueError on unlabelled rows."""
        if self.labels is None:
            raise ValueError("these rows have no labels")
        return self.labels

    @cached_property
    def keys(self) -> list[str]:
        """A key for each row that equal rows share."""
        second = self.pairs if self.pairs is not None else [None] * len(self)
        return [key_of(*both) for both in zip(self.texts, second, strict=True)]

    def take(self, indices: Array) -> Rows:
        """Return the rows at these positions, in this order."""
        return Rows(
            self.source,
            [self.texts[i] for i in indices],
            None if self.pairs is None else [self.pairs[i] for i in indices],
            None if self.labels is None else [self.labels[i] for i in indices],
            [self.numbers[i] if self.numbers else int(i) + 1 for i in indices],
            self.unit,
            self.columns,
            self.form,
            None if self.groups is None else [self.groups[i] for i in indices],
            [self.ids[i] for i in indices] if self.ids else (),
            [self.records[i] for i in indices] if self.records else (),
        )
