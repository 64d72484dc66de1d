"""The rows of a split's files as they are read: good ones are kept, bad ones counted, the first few reported."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from compress.data import asked, tagged
from compress.data.asked import AskedRow, asked_row, is_asked
from compress.data.formats import Bad, Record, kind_of
from compress.data.layout import Layout
from compress.data.parquet import NoLabel, UnknownClass
from compress.data.rows import Rows
from compress.data.tagged import SPANS, TaggedRow, is_tagged, tagged_row, without_spans
from compress.data.unpacking import suffix_of
from compress.errors import DataError
from compress.mapped import NumberColumn, TextColumn
from compress.tasks.label_lists import listed, of_marks
from compress.wording import counted, shortened

_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')


@dataclass
class Collected:
    """The good rows of a file, or of several, and the first bad ones. Good rows go to disk."""

    source: str
    unit: str
    files: list[tuple[int, str]] = field(default_factory=list)  # `Rows.files`
    texts: TextColumn = field(default_factory=TextColumn)
    pairs: TextColumn = field(default_factory=TextColumn)
    labels: TextColumn = field(default_factory=TextColumn)
    groups: TextColumn = field(default_factory=TextColumn)
    ids: TextColumn = field(default_factory=TextColumn)
    numbers: NumberColumn = field(default_factory=NumberColumn)
    records: NumberColumn = field(default_factory=NumberColumn)
    read: int = 0  # records, good and bad
    first_bad: str = ""
    bad: int = 0
    left_out: int = 0  # rows without a label, in a file that allows missing labels
    quoted: int = 0  # fields of a TSV file in CSV quotes
    label_names: Sequence[str] = ()  # the names of labels that are numbers, 0 first
    form: str = ""  # `Rows.form`
    first_listed: str = ""  # place of the first row that is a text with a list
    widened: int = 0  # spans of characters that ended inside a word
    guessed: int = 0  # answers without an offset that occur more than once in their context
    tabs: bool = False  # whether the present file is a TSV file
    last: int = 0  # number of the last record, counted through all files

    def begin(self, file: str) -> None:
        """Go on to the rows of this file, whose numbers begin at 1 again."""
        self.files.append((self.last, file))
        self.tabs = suffix_of(file) == ".tsv"

    def add(self, number: int, record: Record, layout: Layout) -> dict[str, object] | None:
        """Take one row and return its fields, or record that it is bad or left out."""
        self.read += 1
        self.last = (self.files[-1][0] if self.files else 0) + number
        fields = record if isinstance(record, Bad) else layout.fields(record)
        if isinstance(fields, Bad):
            self._refuse(number, fields)
            return None
        if layout.label is not None and isinstance(fields[layout.label], NoLabel):
            self.left_out += 1
            return None
        if layout.label is not None and self.label_names:
            fields = {**fields, layout.label: _named(fields[layout.label], self.label_names)}
        name = None if layout.id is None else _id(fields, layout.id)
        if isinstance(name, Bad):
            self._refuse(number, name)
            return None
        given = None if layout.label is None else fields[layout.label]
        if layout.pair is not None and layout.label is not None and self._is_asked(layout.label, given):
            asked_for = asked_row(fields[layout.text], fields[layout.pair], given)
            return self._add_asked(number, asked_for, fields, name)
        if layout.pair is None and is_tagged(fields[layout.text], given):
            row = tagged_row(fields[layout.text], given, labelled=layout.label is not None)
            return self._add_tagged(number, row, fields, name)
        text, pair = (_text(fields, name) for name in (layout.text, layout.pair))
        if given == [] and isinstance(text, str) and (self.form == tagged.FORM or layout.label in SPANS):
            return self._add_tagged(number, without_spans(text), fields, name)
        if isinstance(given, list) and isinstance(text, str):
            self.first_listed = self.first_listed or self._place(number)
        label = _marked(fields, layout.label_columns) if layout.label_columns else _label(fields, layout.label)
        group = _group(fields, layout.group)
        for value in (label, text, pair, group):
            if isinstance(value, Bad):
                self._refuse(number, value)
                return None
        if self.tabs:
            self.quoted += sum(_QUOTED.fullmatch(value) is not None for value in (text, pair) if isinstance(value, str))
        self._take(name)
        for column, value in (
            (self.texts, text), (self.pairs, pair), (self.labels, label), (self.groups, group),
        ):  # fmt: skip
            if isinstance(value, str):
                column.append(value)
        return fields

    def _add_tagged(
        self, number: int, row: TaggedRow | Bad, fields: dict[str, object], name: str | None
    ) -> dict[str, object] | None:
        """Take a row of words and tags."""
        if isinstance(row, Bad):
            self._refuse(number, row)
            return None
        self.form = tagged.FORM
        self.widened += row.widened
        self._take(name)
        self.texts.append(row.text)
        if row.tags is not None:
            self.labels.append(row.tags)
        return fields

    def _take(self, name: str | None) -> None:
        """Note where a good row stands, and what names it."""
        self.numbers.append(self.last)
        self.records.append(self.read - 1)
        if name is not None:
            self.ids.append(name)

    def _is_asked(self, column: str, given: object) -> bool:
        """Return whether a label is answers in the second text: by its form or column, or as those before it."""
        return is_asked(given) or self.form == asked.FORM or column.strip().casefold() == asked.ANSWERS

    def _add_asked(
        self, number: int, row: AskedRow | Bad, fields: dict[str, object], name: str | None
    ) -> dict[str, object] | None:
        """Take a row of a question, a context and answers."""
        if isinstance(row, Bad):
            self._refuse(number, row)
            return None
        self.form = asked.FORM
        self.guessed += row.guessed
        self._take(name)
        self.texts.append(row.question)
        self.pairs.append(row.context)
        self.labels.append(row.label)
        return fields

    def notes(self) -> list[str]:
        """Return notes about the rows for the report."""
        notes = []
        if self.left_out and not len(self.texts):
            notes.append(f"The labels of {self.source} are not public; it counts as missing.")
        elif self.left_out:
            notes.append(f"{counted(self.left_out, 'row')} of {self.source} without a label are left out.")
        if self.widened:
            notes.append(
                f"{counted(self.widened, 'span')} of {self.source} began or ended inside a word, and now hold the "
                "whole word: a word has one tag."
            )
        if self.guessed:
            notes.append(
                f"{counted(self.guessed, 'answer')} of {self.source} without answer_start occur more than once in "
                "their context; the first place is taken."
            )
        if self.quoted:
            notes.append(
                f"{counted(self.quoted, 'text')} of {self.source} in double quotes, with doubled quotes inside, as a "
                "CSV writer puts them: a .tsv file has no quoting, so they are kept as text."
            )
        return notes

    def rows(self, layout: Layout) -> Rows | None:
        """Return the rows, or None if all are left out; raises DataError for bad ones."""
        if self.bad:
            where = "these files" if len(self.files) > 1 else "this file"
            more = f" {counted(self.bad - 1, f'more {self.unit}')} of {where} cannot be used." if self.bad > 1 else ""
            raise DataError(self.first_bad + more)
        if self.first_listed and self.form == tagged.FORM:
            raise DataError(
                f"{self.first_listed}: a text with a list, where others have lists of words "
                "and of their tags. Write all rows in one way."
            )
        if not len(self.texts) and self.left_out:
            return None
        if not len(self.texts):
            raise DataError(f"{self.source}: has a header but no rows.")
        labelled = layout.label is not None or bool(layout.label_columns)
        return Rows(
            self.source, self.texts.stored(), self.pairs.stored() if layout.pair else None,
            self.labels.stored() if labelled else None, self.numbers.stored(), self.unit, layout.columns, self.form,
            self.groups.stored() if layout.group and not self.form else None, self.ids.stored(), self.records.stored(),
            tuple(self.files),
        )  # fmt: skip

    def _refuse(self, number: int, bad: Bad) -> None:
        self.bad += 1
        self.first_bad = self.first_bad or f"{self._place(number)}: {bad.reason}"

    def _place(self, number: int) -> str:
        """Return the origin of a record of the present file, for a message."""
        return f"{self.files[-1][1] if self.files else self.source}, {self.unit} {number}"


def _named(value: object, names: Sequence[str]) -> object:
    """Return the name of a number, or those of a list of numbers; anything else is left as it is."""
    if isinstance(value, list):
        return [_named(part, names) for part in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return names[value] if 0 <= value < len(names) else UnknownClass(value, len(names), "data.label_names has")


def _text(fields: dict[str, object], name: str | None) -> str | Bad | None:
    if name is None:
        return None
    value = fields[name]
    if value is not None and not isinstance(value, str):
        return Bad(f"{name!r} is {kind_of(value)}, not a string. Put texts in quotes, or set data.text.")
    text = (value or "").strip()
    return text or Bad(f"the text ({name!r}) is empty. Fill it, or remove the row.")


def _group(fields: dict[str, object], name: str | None) -> str | Bad | None:
    if name is None:
        return None
    value = fields[name]
    if value is None or not str(value).strip():
        return Bad(f"the group ({name!r}) is empty. Name the row's group, or remove the row.")
    if isinstance(value, bool) or not isinstance(value, str | int):
        return Bad(f"the group ({name!r}) is {kind_of(value)}, not a word or a whole number.")
    return str(value).strip()


def _label(fields: dict[str, object], name: str | None) -> str | Bad | None:
    if name is None:
        return None
    value = fields[name]
    if isinstance(value, list):
        words = [_word(label, name) for label in value]
        bad = next((word for word in words if isinstance(word, Bad)), None)
        return bad or listed(words)
    return _word(value, name)


def _word(value: object, name: str) -> str | Bad:
    """Return a label, or one of a list, as a word; "" where a field is empty, which only some tasks allow."""
    if isinstance(value, UnknownClass):
        return Bad(f"{value.reason}. Correct it, or write the file again.")
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return Bad(f"the label ({name!r}) is {value}, not a finite number. Correct it, or remove the row.")
    if value is None or isinstance(value, NoLabel):
        return Bad(f"the label ({name!r}) is empty. Fill it, or remove the row.")
    if not isinstance(value, (str, int, float)):
        return Bad(f"the label ({name!r}) is {kind_of(value)}, not a word or a number.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _id(fields: dict[str, object], name: str) -> str | Bad:
    """Return what names a row."""
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        return Bad(f"the id ({name!r}) is {value!r}, neither text nor a whole number. Fill it, or leave out data.id.")
    return str(value).strip()


def _marked(fields: dict[str, object], columns: tuple[str, ...]) -> str | Bad:
    try:
        return of_marks({name: fields[name] for name in columns})
    except ValueError as error:
        name = str(error)
        return Bad(
            f"the label column {name!r} holds {shortened(str(fields[name]))!r}, neither 0 nor 1. Correct it, or take "
            "the column out of data.label_columns."
        )
