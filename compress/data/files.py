"""Rows from the user's own files. Each error names the file, the line, the problem and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from pathlib import Path

from compress.data import asked, conll
from compress.data.collected import Collected
from compress.data.columns import choose, choose_group, choose_label_columns, is_header, listed
from compress.data.formats import READERS, Bad, Numbered, Record, read_txt
from compress.data.headers import check_names, refuse_unknown_header
from compress.data.ignored import Unused, ask_about_second_text
from compress.data.layout import Before, Layout, check_fields, refuse_empty_columns, without_header
from compress.data.paths import files_of, names_fault
from compress.data.related import RECORD, related
from compress.data.rows import Rows, folded
from compress.data.source import Data
from compress.data.splits import SPLITS, Splits
from compress.data.tagged import FORM
from compress.data.unpacking import suffix_of
from compress.errors import DataError, Fault
from compress.known import NOTHING, Known
from compress.settings import nearest
from compress.tasks.choice import AUTO
from compress.tasks.registry import TASKS
from compress.wording import counted

CONLL, SQUAD = ".conll", ".squad"
LINE = "line"
UNITS = {".parquet": "row", SQUAD: asked.UNIT}
"""What is counted in files of other formats than lines."""


class Format(Enum):
    """How a file is written; conll: columns, a word and its tag on each line; squad: the JSON of SQuAD 1.1 and 2.0."""

    tsv = "tsv"
    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"
    conll = "conll"
    squad = "squad"


@dataclass(kw_only=True)
class Files(Data):
    """TSV, CSV, JSONL, Parquet, CoNLL or SQuAD files, recognised by their suffix; UTF-8.

    The rows of a split may be in several files, named by a pattern: rows-*.jsonl stands for all of them in the order of
    their names. Files of lines may be compressed with gzip or Zstandard: rows.csv.gz, rows.jsonl.zst.

    A file with a header has its columns recognised by name (label, text, text_b, sentence1, …) or named
    here; an unnamed column that may hold second texts is an error. A TSV or CSV file without a
    header holds ``label, text`` or ``label, text, second text``. TSV has no quoting, CSV does. Parquet
    columns of class numbers that `datasets` wrote give the names of the classes. Unlabelled rows may also be a
    .txt file, one text per line.

    A tag for each word is in columns (CoNLL, where ``text`` and ``label`` are their numbers), in lists of words and of
    tags, in two columns of a table with spaces between words and between tags, or in lists of spans: start, end, label.

    Answers in a context are in SQuAD's JSON (a .json file), or in rows with question, context and answers.

    For sentence vectors and rankings, columns named query, positive and negative (several texts in a list, or further
    columns that begin with negative) stand for a row of each text beside the query, relevance 1 or 0.
    """

    train: str = ""  # path, or a pattern such as rows-*.jsonl; required, unless there are unlabelled rows alone
    validation: str | None = None  # path or pattern; used as the test rows if there are no others
    test: str | None = None
    unlabelled: str | None = (
        None  # path or pattern; more texts, which only the teacher labels; without data.train all there is
    )
    text: str | None = None  # name of the text column; default: recognised
    text_pair: str | None = None  # name of the column with second texts
    label: str | None = None  # name of the label column
    group: str | None = (
        None  # rankings: name of the column that names each row's group; default: recognised, or the first text
    )
    id: str | None = None  # name of the column that names each row, by which a teacher's answers in a file are found
    format: Format | None = None  # tsv, csv, jsonl, parquet, conll or squad; default: by the suffix
    label_names: list[str] = field(
        default_factory=list
    )  # names of the labels that numbers in a file stand for, 0 first, as [O,B-PER,I-PER]; default: none
    label_columns: list[str] = field(
        default_factory=list
    )  # several labels: names of their 0/1 columns, in which * stands for any letters
    header: bool | None = None  # whether a TSV or CSV file has a header; default: recognised by the names in line 1

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check counts, files and combinations of settings."""
        yield from super().faults(known)
        if not self.train and not self.unlabelled:
            remedy = (
                "For example data.train=my/train.tsv; or texts that a teacher labels: data.unlabelled=my/texts.txt."
            )
            yield Fault("train", None, "needs a file", remedy)
        for name in SPLITS:
            value = getattr(self, name)
            if value == "" and name != "train":
                yield Fault(name, value, "is not a path", "Leave it out, or name a file.")
            elif value and (fault := self._names_fault(value, name == "unlabelled")):
                yield Fault(name, value, *fault)
        given = {name: files_of(value) for name in SPLITS if (value := getattr(self, name))}
        for index, (name, files) in enumerate(given.items()):
            for other in list(given)[:index]:
                if shared := set(files).intersection(given[other]):
                    what = (
                        "is the file" if shared == set(files) == set(given[other]) else f"names {min(shared)}, a file"
                    )
                    yield Fault(name, getattr(self, name), f"{what} of data.{other}", "Give it its own rows.")
        columns = [name for name in (self.text, self.text_pair, self.label) if name is not None]
        if len(set(columns)) < len(columns):
            yield Fault("text", self.text, "names the same column as another of text, text_pair, label")
        if self.group is not None and self.group == self.label:
            yield Fault("group", self.group, "names the same column as label")
        if self.text_pair is not None and self.text is None:
            yield Fault("text", None, "must be named when text_pair is", "For example data.text=COLUMN.")
        if self.id is not None and self.id in columns:
            yield Fault("id", self.id, "names the same column as one of text, text_pair, label")
        if self.header is False and self.id is not None:
            yield Fault("id", self.id, "names a column, and header=false says that columns have no names")
        if self.header is False and (columns or self.label_columns or self.group):
            remedy = "Leave out data.text, data.text_pair, data.label, data.group."
            yield Fault("header", False, "leaves no columns to name", remedy)
        if len(set(self.label_names)) < len(self.label_names):
            yield Fault("label_names", list(self.label_names), "names a label twice", "Give each number its own name.")
        if self.label is not None and self.label_columns:
            yield Fault("label", self.label, "is one column, and label_columns names several", "Leave out one of them.")

    def read(self) -> Splits:
        """Read the given files; raises DataError at the first unusable one."""
        return self.read_for(AUTO)

    def read_for(self, task: str) -> Splits:
        """Read the given files; of a task whose texts are apart, unlabelled rows may be single texts."""
        alone = task in TASKS and TASKS[task].apart
        name = self.train or self.unlabelled
        if not name:
            raise DataError("data.train needs a file, for example data.train=my/train.tsv.")
        notes: list[str] = []
        train = self._rows(name, notes, labelled=bool(self.train))
        if train is None:
            raise DataError(f"{name}: no row has a label. Choose another file: data.train=PATH.")

        like = None if alone and train.labels is None else train  # texts of their own, and pairs that measure them

        def read(path: str | None, labelled: bool = True) -> Rows | None:
            return None if path is None else self._rows(path, notes, labelled, like, alone=alone and not labelled)

        if self.label_columns and train.form == FORM:
            raise DataError(f"{name}: has words and their tags, no 0/1 columns. Leave out data.label_columns.")
        refuse_empty_columns(train)
        validation, test = read(self.validation), read(self.test)
        unlabelled = read(self.unlabelled, labelled=False) if self.train else None
        if self.header is None and train.labels is not None and train.columns is not None and not train.columns.named:
            refuse_unknown_header(train, (validation, test))
        return Splits(
            name=name, train=train, validation=validation, test=test, unlabelled=unlabelled, notes=tuple(notes)
        )

    def _rows(
        self, name: str, notes: list[str], labelled: bool, like: Rows | None = None, *, alone: bool = False
    ) -> Rows | None:
        """Return the rows of a file or of a pattern's files, or None if none has a label; ``like``: the training rows.

        ``alone``: rows may have one text though those have two.
        """
        if fault := self._names_fault(name, not labelled):
            rule, remedy = fault
            raise DataError(f"{name}: {rule}. {remedy}".rstrip())
        paths = files_of(name)
        collected = Collected(name, UNITS.get(self._suffix(paths[0], labelled), LINE), label_names=self.label_names)
        before = (
            None if like is None or like.columns is None else Before(like.source, like.columns, like.pairs is not None)
        )
        given = before is not None and before.columns.named
        layout: Layout | None = None
        for path in paths:
            file = name if len(paths) == 1 else str(path)
            collected.begin(file)
            try:
                own, records = self._opened(file, path, labelled, before, alone, [] if layout else notes)
                if layout is None:
                    layout, unused = own, Unused(own.ignored)
                for number, record in records:
                    if (fields := collected.add(number, record, own)) is not None:
                        unused.see(fields)
            except PermissionError:
                raise DataError(f"{file}: may not be read. Make it readable: chmod u+r {file}.") from None
            before = before or Before(file, own.columns, own.pair is not None)
        assert layout is not None  # there is a file at least
        rows = collected.rows(layout)
        if labelled and self.text is None and layout.pair is None and not given:
            ask_about_second_text(unused, layout.text, name)
        notes += collected.notes()
        return rows

    def _opened(
        self, name: str, path: Path, labelled: bool, like: Before | None, alone: bool, notes: list[str]
    ) -> tuple[Layout, Numbered]:
        """Return the meaning of a file's columns, and its rows."""
        suffix = self._suffix(path, labelled)
        if suffix == CONLL:
            return self._sentences(name, path, labelled)
        if suffix == ".tsv" and self.format is None and labelled and conll.looks_like_conll(path):
            raise DataError(
                f"{name}: has empty lines between its lines, each of which ends in a tag: are these words in "
                "columns, as CoNLL has them? Then set data.format=conll; otherwise data.format=tsv."
            )
        read = asked.read_squad if suffix == SQUAD else READERS.get(suffix, read_txt)
        records = read(path)
        if labelled and not (self.text or self.label or self.label_columns or self.header is False):
            records, columns = related(records)
            notes += [] if columns is None else [columns.note(name)]
        return self._layout(name, suffix, records, labelled, like, alone)

    def _suffix(self, path: Path, labelled: bool) -> str:
        """Return the suffix that says how a file is written; `CONLL` for all of CoNLL's, `SQUAD` for its JSON."""
        suffix = suffix_of(path)
        if self.format is not None and (labelled or suffix != ".txt"):
            return f".{self.format.value}"
        if suffix == ".json" and asked.looks_like_squad(path):
            return SQUAD
        return CONLL if suffix in conll.SUFFIXES else suffix

    def _sentences(self, name: str, path: Path, labelled: bool) -> tuple[Layout, Numbered]:
        """Return the columns of a CoNLL file's records, and the records."""
        if self.id is not None:
            raise DataError(f"{name}: has columns of words and tags, and none of ids. Leave out data.id.")
        records = conll.read_conll(path, self.text, self.label, labelled=labelled)
        first = next(records, None)
        if first is None:
            raise DataError(f"{name}: has no rows. Each line holds a word and its tag.")
        names = [conll.WORDS, *([conll.TAGS] if labelled else [])]
        layout = Layout(names, names[0], None, names[1] if labelled else None, by_position=False, line=first[0])
        return layout, chain([first], records)

    def _layout(
        self, name: str, suffix: str, records: Numbered, labelled: bool, like: Before | None, alone: bool
    ) -> tuple[Layout, Numbered]:
        """Inspect the first readable row; return the meaning of its columns, and the rows after a header."""
        passed: list[tuple[int, Record]] = []
        number, first = 0, None
        for number, record in records:
            if not isinstance(record, Bad):
                first = record
                break
            passed.append((number, record))
        if first is None:
            if passed:
                unit = UNITS.get(suffix, LINE)
                more = counted(len(passed) - 1, f"more {unit}")
                tail = f" {more} of this file cannot be read either." if len(passed) > 1 else ""
                raise DataError(f"{name}, {unit} {passed[0][0]}: {_reason(passed[0][1])}{tail}")
            raise DataError(f"{name}: has no rows. Each line holds a label and a text.")
        if alone and not isinstance(first, dict) and len(first) == 1:
            like = None
        named = (self.text, self.text_pair, self.label)
        if isinstance(first, dict) or (suffix != ".txt" and self._has_header(first)):
            names = list(first)
            if not isinstance(first, dict):
                check_fields(f"{name}, line {number}", suffix, first, named=True)
                names = [column.strip() for column in names]
            check_names(names, name, named=named)
            hint = "" if isinstance(first, dict) else " A file without a header has the label first, then the text."
            wanted = self._same_columns(names, name, labelled, like)
            by_column = labelled and bool(self.label_columns)
            if self.id is not None and self.id not in names:
                raise DataError(
                    f"{name}: has no column {self.id!r} (data.id); its columns are {listed(names)}. "
                    f"{nearest(self.id, names)}"
                )
            columns = choose(
                [column for column in names if column != self.id],
                *wanted,
                where=name,
                labelled=labelled and not by_column,
                hint=hint,
            )
            of_labels = choose_label_columns(names, self.label_columns, columns, name) if by_column else ()
            layout = Layout(
                names, *columns, of_labels, by_position=not isinstance(first, dict), line=number, id=self.id,
                group=self._group(names, name, labelled, (*columns, *of_labels), like),
            )  # fmt: skip
        else:
            if self.id is not None:
                raise DataError(f"{name}: has no header, so that data.id = {self.id!r} names no column of it.")
            if suffix != ".txt":
                check_fields(f"{name}, line {number}", suffix, first, named=False)
            layout = without_header(name, number, list(first), labelled, like)
            columns = None
        if not alone and like is not None and (layout.pair is not None) != like.paired:
            single, double = (name, like.source) if layout.pair is None else (like.source, name)
            raise DataError(
                f"{name}: {single} has one text per row, {double} has two. Give both files the same columns, or name "
                "them with data.text and data.text_pair."
            )
        header = isinstance(first, list) and columns is not None
        return layout, chain(passed, records if header else chain([(number, first)], records))

    def _group(
        self, names: list[str], name: str, labelled: bool, others: Sequence[str | None], like: Before | None
    ) -> str | None:
        """Return the column of groups, which is that of the training rows."""
        if like is None or not like.columns.named:
            return choose_group(names, self.group, others, name)
        column = like.columns.group
        if column == RECORD and column not in names:
            return choose_group(names, self.group, others, name)
        return (
            None
            if column is None or (column not in names and not labelled)
            else choose_group(names, column, others, name)
        )

    def _has_header(self, first: list[str]) -> bool:
        if self.header is not None:
            return self.header
        names = (self.text, self.text_pair, self.label, self.group, self.id)
        return any(name is not None for name in names) or bool(self.label_columns) or is_header(first)

    def _same_columns(
        self, names: list[str], name: str, labelled: bool, like: Before | None
    ) -> tuple[str | None, str | None, str | None]:
        """Return the named columns, or those of the training rows, which every labelled file needs."""
        if self.text is not None or like is None or not like.columns.named:
            return self.text, self.text_pair, self.label
        by_name = {folded(column): column for column in reversed(names)}
        columns = like.columns
        label = self.label or columns.label
        wanted = [columns.text, columns.pair, label if labelled else None]
        lacking = [column for column in wanted if column is not None and folded(column) not in by_name]
        if lacking and labelled:
            raise DataError(
                f"{name}: has no column {lacking[0]!r}, which {like.source} has and which is used; its columns are "
                f"{listed(names)}. Give both files the same columns, or the same names to them."
            )
        if lacking:
            return None, None, None
        text, pair, label = (column if column is None else by_name[folded(column)] for column in wanted)
        return text, pair, label

    def _names_fault(self, name: str, unlabelled: bool) -> tuple[str, str] | None:
        """Return (rule, remedy) if a path or a pattern names no readable files."""
        return names_fault(name, unlabelled, any_suffix=self.format is not None)


def _reason(record: Record) -> str:
    return record.reason if isinstance(record, Bad) else ""
