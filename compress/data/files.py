"""Rows from a user's own files. Each fault names the file, the line, what is wrong and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

from compress.data.columns import choose, is_header
from compress.data.formats import READERS, Bad, Numbered, Record, kind_of, read_txt
from compress.data.rows import Rows, counted
from compress.data.source import Data, Parts
from compress.errors import DataError, Fault

SPLITS = ("train", "validation", "test", "unlabelled")


@dataclass(kw_only=True)
class Files(Data):
    """TSV, CSV, JSONL or Parquet files, told apart by their suffix; UTF-8.

    A file with a header has its columns recognised by name (label, text, text_b, sentence1, …) or named
    here. A TSV or CSV file without one holds ``label, text`` or ``label, text, second text``. TSV knows no
    quoting, CSV does. Unlabelled rows may also be a .txt file, one text a line.
    """

    train: str = ""  # path; the only one that is needed
    validation: str | None = None  # without a test file, these are the test rows
    test: str | None = None
    unlabelled: str | None = None  # more texts, which only the teacher labels
    text: str | None = None  # name of the column of texts; None: recognised
    text_pair: str | None = None  # name of the column of second texts
    label: str | None = None  # name of the column of labels

    def faults(self) -> Iterator[Fault]:
        """Yield faults of the counts, of files that are not there and of settings that exclude each other."""
        yield from super().faults()
        if not self.train:
            yield Fault("train", None, "needs a file", "For example data.train=my/train.tsv.")
        for name in SPLITS:
            value = getattr(self, name)
            if value == "" and name != "train":
                yield Fault(name, value, "is not a path", "Leave it out, or name a file.")
            elif value and (fault := _path_fault(Path(value).expanduser(), name == "unlabelled")):
                yield Fault(name, value, *fault)
        given = [name for name in SPLITS if getattr(self, name)]
        for index, name in enumerate(given):
            for other in given[:index]:
                if Path(getattr(self, name)).expanduser() == Path(getattr(self, other)).expanduser():
                    yield Fault(name, getattr(self, name), f"is the file of data.{other}", "Give it its own rows.")
        columns = [name for name in (self.text, self.text_pair, self.label) if name is not None]
        if len(set(columns)) < len(columns):
            yield Fault("text", self.text, "names the same column as another of text, text_pair, label")
        if self.text_pair is not None and self.text is None:
            yield Fault("text", None, "must be named when text_pair is", "For example data.text=COLUMN.")

    def read(self) -> Parts:
        """Read the files that are given; raises DataError at the first that cannot be used."""
        if not self.train:
            raise DataError("data.train needs a file, for example data.train=my/train.tsv.")
        train = self._rows(self.train, labelled=True)

        def read(path: str | None, labelled: bool = True) -> Rows | None:
            return None if path is None else self._rows(path, labelled, train)

        validation, test, unlabelled = read(self.validation), read(self.test), read(self.unlabelled, labelled=False)
        return Parts(name=self.train, train=train, validation=validation, test=test, unlabelled=unlabelled)

    def _rows(self, name: str, labelled: bool, like: Rows | None = None) -> Rows:
        path = Path(name).expanduser()
        if fault := _path_fault(path, not labelled):
            rule, remedy = fault
            raise DataError(f"{name}: {rule}. {remedy}".rstrip())
        reader = READERS.get(path.suffix.lower(), read_txt)
        collected = _Collected(name, "row" if path.suffix.lower() == ".parquet" else "line")
        try:
            layout, records = self._layout(name, reader(path), labelled, like)
            for number, record in records:
                collected.add(number, record, layout)
        except PermissionError:
            raise DataError(f"{name}: may not be read. Give yourself the right to: chmod u+r.") from None
        return collected.rows(layout)

    def _layout(self, name: str, records: Numbered, labelled: bool, like: Rows | None) -> tuple[_Layout, Numbered]:
        """Look at the first row that can be read; return what its columns mean, and the rows after a header."""
        passed: list[tuple[int, Record]] = []
        number, first = 0, None
        for number, record in records:
            if not isinstance(record, Bad):
                first = record
                break
            passed.append((number, record))
        if first is None:
            if passed:
                more = counted(len(passed) - 1, "more line")
                tail = f" {more} of this file cannot be read either." if len(passed) > 1 else ""
                raise DataError(f"{name}, line {passed[0][0]}: {_reason(passed[0][1])}{tail}")
            raise DataError(f"{name}: has no rows. Each line holds a label and a text.")
        plain = Path(name).suffix.lower() == ".txt"
        named = [column for column in (self.text, self.text_pair, self.label) if column is not None]
        if isinstance(first, dict) or (not plain and (named or is_header(first))):
            names = list(first)
            if not isinstance(first, dict):
                names = [column.strip() for column in names]
            hint = "" if isinstance(first, dict) else " A file without a header has the label first, then the text."
            columns = choose(names, self.text, self.text_pair, self.label, where=name, labelled=labelled, hint=hint)
            layout = _Layout(names, *columns, by_position=not isinstance(first, dict))
        else:
            layout = _without_header(name, number, list(first), labelled, like)
            columns = None
        if like is not None and (layout.pair is None) != (like.pairs is None):
            one, two = (name, like.source) if layout.pair is None else (like.source, name)
            raise DataError(
                f"{name}: {one} has one text a row, {two} has two. Give both files the same columns, or name them "
                "with data.text and data.text_pair."
            )
        header = isinstance(first, list) and columns is not None
        return layout, chain(passed, records if header else chain([(number, first)], records))


@dataclass(frozen=True)
class _Layout:
    """Which fields hold what, by name; ``names`` gives their positions in a record of fields."""

    names: list[str]
    text: str
    pair: str | None
    label: str | None
    by_position: bool = True

    def fields(self, record: list[str] | dict[str, object]) -> dict[str, object] | Bad:
        """Return the fields by name, or why there are none."""
        if isinstance(record, dict):
            missing = [column for column in (self.text, self.pair, self.label) if column and column not in record]
            return Bad(f"has no {missing[0]!r}. Each object needs the same keys.") if missing else record
        if len(record) != len(self.names):
            return Bad(
                f"expected {counted(len(self.names), 'field')} ({', '.join(self.names)}), got {len(record)}. "
                "A .tsv file divides fields by one tab and knows no quotes; in a .csv file a text with a comma "
                "stands in double quotes."
            )
        return dict(zip(self.names, record, strict=True))


@dataclass
class _Collected:
    """The good rows of one file, and the first of its bad ones."""

    source: str
    unit: str
    texts: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    first_bad: str = ""
    bad: int = 0

    def add(self, number: int, record: Record, layout: _Layout) -> None:
        """Take one row, or remember that it is bad."""
        fields = record if isinstance(record, Bad) else layout.fields(record)
        if isinstance(fields, Bad):
            self._refuse(number, fields)
            return
        text, pair = (_text(fields, name) for name in (layout.text, layout.pair))
        label = _label(fields, layout.label)
        for value in (label, text, pair):
            if isinstance(value, Bad):
                self._refuse(number, value)
                return
        self.numbers.append(number)
        for column, value in ((self.texts, text), (self.pairs, pair), (self.labels, label)):
            if isinstance(value, str):
                column.append(value)

    def rows(self, layout: _Layout) -> Rows:
        """Return the rows, or raise for the bad ones."""
        if self.bad:
            more = f" {counted(self.bad - 1, f'more {self.unit}')} of this file cannot be used." if self.bad > 1 else ""
            raise DataError(self.first_bad + more)
        if not self.texts:
            raise DataError(f"{self.source}: has a header but no rows.")
        pairs, labels = self.pairs if layout.pair else None, self.labels if layout.label else None
        return Rows(self.source, self.texts, pairs, labels, self.numbers, self.unit)

    def _refuse(self, number: int, bad: Bad) -> None:
        self.bad += 1
        self.first_bad = self.first_bad or f"{self.source}, {self.unit} {number}: {bad.reason}"


def _without_header(name: str, number: int, first: list[str], labelled: bool, like: Rows | None) -> _Layout:
    """Return the layout of a file without a header: label, text, second text."""
    if labelled and len(first) in (2, 3):
        names = ["label", "text", "text_b"][: len(first)]
        return _Layout(names, "text", "text_b" if len(first) == 3 else None, "label")
    texts = 2 if like is not None and like.pairs is not None else 1
    if not labelled and len(first) in (texts, texts + 1):
        names = ["label", "text", "text_b"][: texts + 1][-len(first) :]  # a label is passed over
        return _Layout(names, "text", "text_b" if texts == 2 else None, None)
    expected = "label and text, or label, text and second text"
    if not labelled:
        expected = "text and second text" if texts == 2 else "one text"
    raise DataError(
        f"{name}, line {number}: expected {expected}; got {counted(len(first), 'field')}. A file with other columns "
        "needs a header. A .tsv file divides fields by a tab, a .csv file by a comma."
    )


def _text(fields: dict[str, object], name: str | None) -> str | Bad | None:
    if name is None:
        return None
    value = fields[name]
    if value is not None and not isinstance(value, str):
        return Bad(f"{name!r} is a {kind_of(value)}, not a string. Put texts in quotes, or set data.text.")
    text = (value or "").strip()
    return text or Bad(f"the text ({name!r}) is empty. Fill it, or remove the row.")


def _label(fields: dict[str, object], name: str | None) -> str | Bad | None:
    if name is None:
        return None
    value = fields[name]
    if value is not None and not isinstance(value, (str, int, float)):
        return Bad(f"the label ({name!r}) is a {kind_of(value)}, not a word or a number.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    label = "" if value is None else str(value).strip()
    return label or Bad(f"the label ({name!r}) is empty. Fill it, or remove the row.")


def _path_fault(path: Path, unlabelled: bool) -> tuple[str, str] | None:
    """Return (rule, remedy) where there is no file that can be read."""
    try:
        return _looked_at(path, unlabelled)
    except OSError as error:
        return f"cannot be read ({error.strerror})", "Give yourself the right to read it and its folder."


def _looked_at(path: Path, unlabelled: bool) -> tuple[str, str] | None:
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in READERS)[:5]
        return "is a directory", f"Name a file in it: {', '.join(inside)}." if inside else "Name a file."
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        close = get_close_matches(path.name, siblings, n=1)
        if close:
            return "does not exist", f"Did you mean {path.parent / close[0]}?"
        return "does not exist", "" if path.parent.is_dir() else f"Nor does the folder {path.parent}."
    if not path.is_file():
        return "is no regular file", "Copy what it holds into a file."
    known = [*READERS, *([".txt"] if unlabelled else [])]
    if path.suffix.lower() not in known:
        return f"has the unknown suffix {path.suffix!r}", f"Known: {', '.join(known)}. Rename or convert it."
    return ("has no rows", "The file is empty.") if path.stat().st_size == 0 else None


def _reason(record: Record) -> str:
    return record.reason if isinstance(record, Bad) else ""
