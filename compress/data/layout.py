"""The columns of a file: which fields of a record hold the text, the second text and the label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from compress.data.formats import Bad
from compress.data.rows import Columns, Rows
from compress.data.sniff import divided_otherwise, quoted_tsv
from compress.data.unpacking import suffix_of
from compress.errors import DataError
from compress.tasks.label_lists import names_of
from compress.wording import counted


@dataclass(frozen=True)
class Layout:
    """The columns by name; ``names`` gives their positions in a record."""

    names: list[str]
    text: str
    pair: str | None
    label: str | None
    label_columns: tuple[str, ...] = ()  # 0/1 columns, one for each label
    by_position: bool = True
    line: int | None = None  # of the header, if the file has one
    group: str | None = None
    id: str | None = None  # what names each row

    @property
    def ignored(self) -> tuple[str, ...]:
        """Unused columns."""
        return tuple(name for name in self.names if name not in self._used)

    @cached_property
    def _used(self) -> tuple[str, ...]:
        single = (self.text, self.pair, self.label, self.group, self.id)
        return (*(name for name in single if name is not None), *self.label_columns)

    @property
    def columns(self) -> Columns:
        """The same without positions, for messages."""
        header = f"header in line {self.line}" if self.line else "no header"
        header = header if self.by_position else "columns by name"
        columns = self.text, self.pair, self.label, self.label_columns
        return Columns(header, *columns, self.ignored, self.line is not None, self.group)

    def fields(self, record: list[str] | dict[str, object]) -> dict[str, object] | Bad:
        """Return the fields by name, or the reason why the record is bad."""
        if isinstance(record, dict):
            missing = [column for column in self._used if column not in record]
            return Bad(f"has no {missing[0]!r}. Each object needs the same keys.") if missing else record
        if self.line is not None and [field.strip() for field in record] == self.names:
            return Bad("the header again: were two files joined? Remove the line.")
        if len(record) != len(self.names):
            if any("\r" in field for field in record):
                return Bad("a lone carriage return (CR) does not end a line. Convert the file: tr '\\r' '\\n'.")
            return Bad(
                f"expected {counted(len(self.names), 'field')} ({', '.join(self.names)}), got {len(record)}. "
                "A .tsv file separates fields by one tab and has no quoting; in a .csv file a text with a comma "
                "needs double quotes."
            )
        return dict(zip(self.names, record, strict=True))


@dataclass(frozen=True)
class Before:
    """Rows that were read before, as those of training, with whose columns a file must agree."""

    source: str  # their file, for messages
    columns: Columns
    paired: bool  # whether rows are two texts


def refuse_empty_columns(train: Rows) -> None:
    """Raise DataError where a 0/1 column is 0 in all training rows."""
    columns = () if train.columns is None else train.columns.label_columns
    there = {name for word in set(train.words) for name in names_of(word) or ()} if columns else set()
    empty = [name for name in columns if name not in there]
    if empty:
        raise DataError(
            f"{train.source}: the label column {empty[0]!r} is 0 in every row; there is nothing to learn of it. Take "
            "it out of data.label_columns, or give rows in which it is 1."
        )


def check_fields(where: str, suffix: str, fields: list[str], *, named: bool) -> None:
    """Raise DataError if a first row has other delimiters or quotes than its suffix says."""
    reason = divided_otherwise(suffix, fields, named=named)
    if reason and (named or len(fields) > 1):  # for a single field, `without_header` says what is expected
        raise DataError(f"{where}: {reason}")
    if suffix == ".tsv" and quoted_tsv(fields):
        raise DataError(
            f"{where}: each field is in double quotes, but a .tsv file has no quoting. Write it without them "
            "(csv.QUOTE_NONE), or as a .csv file with commas."
        )


def without_header(name: str, number: int, first: list[str], labelled: bool, like: Before | None) -> Layout:
    """Return the layout of a file without a header: label, text, second text."""
    if labelled and len(first) in (2, 3):
        names = ["label", "text", "text_b"][: len(first)]
        return Layout(names, "text", "text_b" if len(first) == 3 else None, "label")
    texts = 2 if like is not None and like.paired else 1
    if not labelled and len(first) in (texts, texts + 1):
        names = ["label", "text", "text_b"][: texts + 1][-len(first) :]  # a label is passed over
        return Layout(names, "text", "text_b" if texts == 2 else None, None)
    expected = "label and text, or label, text and second text"
    if not labelled:
        expected = "text and second text" if texts == 2 else "one text"
    remedy = divided_otherwise(suffix_of(name), first, named=False) or (
        "a file with other columns needs a header. A .tsv file divides fields by a tab, a .csv file by a comma."
    )
    remedy = remedy[:1].upper() + remedy[1:]
    raise DataError(f"{name}, line {number}: expected {expected}; got {counted(len(first), 'field')}. {remedy}")
