"""Rows from any data set on the Hugging Face hub, or from a local folder in one of its layouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from compress.data.asked import ANSWERS, is_asked
from compress.data.collected import Collected
from compress.data.columns import choose, choose_group, choose_label_columns
from compress.data.formats import Bad, kind_of
from compress.data.ignored import LOOKED_AT, Unused, ask_about_second_text
from compress.data.layout import Layout, refuse_empty_columns
from compress.data.names import no_data_set
from compress.data.rows import Columns, Rows
from compress.data.source import Data
from compress.data.splits import Splits
from compress.data.tagged import FORM, TaggedRow, is_tagged, tagged_row, without_spans
from compress.errors import DataError, Fault
from compress.hub_access import offline, unreachable
from compress.known import NOTHING, Known
from compress.mapped import NumberColumn, TextColumn
from compress.settings import nearest
from compress.tasks.label_lists import listed, of_marks
from compress.wording import counted

USUAL = {"validation": ("validation", "validation_matched", "dev", "valid"), "test": ("test", "test_matched")}
OFFLINE = "Without a network, use files: data=files data.train=PATH."


@dataclass(kw_only=True)
class Hub(Data):
    """A data set by its hub id. Code in a data set is never run.

    A split whose labels are all -1, as GLUE's test splits, counts as missing; other rows without a label
    or a text are left out and counted.
    """

    path: str = ""  # hub id, for example nyu-mll/glue, or a local folder
    subset: str | None = None  # part of the data set, for example sst2
    text: str | None = None  # name of the text column; default: recognised
    text_pair: str | None = None  # name of the column with second texts
    label: str | None = None  # name of the label column
    group: str | None = (
        None  # rankings: name of the column that names each row's group; default: recognised, or the first text
    )
    label_columns: list[str] = field(
        default_factory=list
    )  # several labels: names of their 0/1 columns, in which * stands for any letters
    train: str = "train"  # name of the split; default: the usual one
    validation: str | None = None
    test: str | None = None
    unlabelled: str | None = None

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check counts and required names."""
        yield from super().faults(known)
        if not self.path:
            yield Fault("path", None, "must be the id of a data set", "For example data.path=stanfordnlp/imdb.")
        elif reason := no_data_set(self.path):
            yield Fault("path", self.path, *reason)
        if not self.train:
            yield Fault("train", None, "needs the name of a split", "For example data.train=train.")
        if self.text_pair is not None and self.text is None:
            yield Fault("text", None, "must be named when text_pair is", "For example data.text=COLUMN.")
        if self.label is not None and self.label_columns:
            yield Fault("label", self.label, "is one column, and label_columns names several", "Leave out one of them.")

    def read(self) -> Splits:
        """Download the data set, or take it from the cache, and return its rows."""
        splits = _loaded(self.path, self.subset)
        notes: list[str] = []
        train = self._rows(splits, "train", notes)
        if train is None:
            raise DataError(f"{self._where(self.train)}: no row has a label. Name another split: data.train=SPLIT.")
        refuse_empty_columns(train)
        validation, test, unlabelled = (self._rows(splits, n, notes) for n in ("validation", "test", "unlabelled"))
        for other in (validation, test, unlabelled):
            if other is not None and (other.pairs is None) != (train.pairs is None):
                raise DataError(f"{other.source} and {train.source}: one has second texts, the other has none.")
        name = f"{self.path}/{self.subset}" if self.subset else self.path
        return Splits(
            name=name, train=train, validation=validation, test=test, unlabelled=unlabelled, notes=tuple(notes)
        )

    def _where(self, split: str) -> str:
        return f"{self.path}{f' ({self.subset})' if self.subset else ''}, split {split}"

    def _rows(self, splits: Mapping[str, Any], name: str, notes: list[str]) -> Rows | None:
        asked = getattr(self, name)
        usual = next((split for split in USUAL.get(name, ()) if split in splits), None)
        split = asked if asked is not None else usual
        if split is None:
            return None
        where = self._where(split)
        if split not in splits:
            raise DataError(f"{where}: there is no such split (data.{name}). {nearest(split, list(splits))}")
        table, labelled = splits[split], name != "unlabelled"
        by_column = labelled and bool(self.label_columns)
        columns = choose(
            table.column_names, self.text, self.text_pair, self.label, where=where, labelled=labelled and not by_column
        )
        marked = choose_label_columns(table.column_names, self.label_columns, columns, where) if by_column else ()
        group = choose_group(table.column_names, self.group, (*columns, *marked), where)
        unused = Unused([column for column in table.column_names if column not in (*columns, *marked, group)])
        if labelled and self.text is None and columns[1] is None:
            for row in table.select(range(min(LOOKED_AT, len(table)))):
                unused.see(row)
            ask_about_second_text(unused, columns[0], where)
        texts, pairs, labels = (None if column is None else table[column] for column in columns)
        assert texts is not None  # choose always returns a column of texts
        if pairs is not None and labels is not None and (columns[2] == ANSWERS or any(map(is_asked, labels))):
            return _asked(
                where, texts, pairs, labels, Columns("columns by name", *columns, (), tuple(unused.names)), notes
            )
        if not marked and columns[1] is None and any(map(is_tagged, texts, labels or [None] * len(texts))):
            names = None if columns[2] is None else class_names(table.features[columns[2]])
            return _tagged(
                where,
                list(texts),
                labels and list(labels),
                names,
                Columns("columns by name", *columns, (), tuple(unused.names)),
            )
        for column, values in zip(columns[:2], (texts, pairs), strict=True):
            odd = next((value for value in values or () if value is not None and not isinstance(value, str)), None)
            if odd is not None:
                raise DataError(f"{where}: the column {column!r} holds {kind_of(odd)}, not texts. Set data.text.")
        kind = None if columns[2] is None else table.features[columns[2]]
        names = getattr(getattr(kind, "feature", kind), "names", None)
        if labels is not None and all(label is None or label == -1 for label in labels):
            if name != "train":
                notes.append(f"The labels of split {split} are not public; it counts as missing.")
            return None
        words: Iterable[str | None] = repeat("")
        if marked:
            marks = enumerate(zip(*(table[column] for column in marked), strict=True))
            words = (_marks(dict(zip(marked, row, strict=True)), where, number) for number, row in marks)
        elif labels is not None:
            words = (_word(label, names) for label in labels)
        found = {role: TextColumn() for role in ("texts", "pairs", "labels", "groups")}
        numbers, records = NumberColumn(), NumberColumn()
        seconds, named = repeat("") if pairs is None else pairs, repeat("") if group is None else table[group]
        for record, (first, second, word, own) in enumerate(zip(texts, seconds, words, named, strict=False)):
            text, pair = (first or "").strip(), (second or "").strip()
            if text and (pairs is None or pair) and word is not None:
                numbers.append(record + 1)
                records.append(record)
                for stored, value in zip(found.values(), (text, pair, word, str(own).strip()), strict=True):
                    stored.append(value)
        kept = len(found["texts"])
        if not kept:
            raise DataError(f"{where}: has no rows with a text. Name another split: data.{name}=SPLIT.")
        if left_out := len(table) - kept:
            notes.append(f"{counted(left_out, 'row')} of split {split} without a text or a label are left out.")
        return Rows(
            where,
            found["texts"].stored(),
            None if pairs is None else found["pairs"].stored(),
            None if labels is None and not marked else found["labels"].stored(),
            numbers.stored(),
            columns=Columns("columns by name", *columns, marked, tuple(unused.names), group=group),
            groups=None if group is None else found["groups"].stored(),
            records=records.stored(),
        )


def class_names(feature: Any) -> list[str] | None:
    """Return the names of the classes of a feature of `datasets`, or of what it lists; None where it has none."""
    inner = getattr(feature, "feature", None) or (feature[0] if isinstance(feature, list) and feature else None)
    names = getattr(feature, "names", None)
    return class_names(inner) if inner is not None else None if names is None else list(names)


def _tagged(
    where: str, texts: Sequence[object], labels: Sequence[object] | None, names: list[str] | None, columns: Columns
) -> Rows:
    """Return rows with a tag for each word; raises DataError for the first that is none."""
    rows: list[TaggedRow] = []
    for number, text in enumerate(texts, 1):
        given = None if labels is None else labels[number - 1]
        if names is not None and isinstance(given, list):
            given = [names[tag] if isinstance(tag, int) and 0 <= tag < len(names) else tag for tag in given]
        if is_tagged(text, given):
            row = tagged_row(text, given, labelled=labels is not None)
        else:
            row = without_spans(str(text)) if given == [] else Bad("has neither words and tags nor a text and spans.")
        if isinstance(row, Bad):
            raise DataError(f"{where}, row {number}: {row.reason}")
        rows.append(row)
    tags = None if labels is None else [row.tags or "" for row in rows]
    return Rows(where, [row.text for row in rows], None, tags, columns=columns, form=FORM)


def _asked(
    where: str, texts: Sequence[object], pairs: Sequence[object], labels: Sequence[object], columns: Columns,
    notes: list[str],
) -> Rows:  # fmt: skip
    """Return rows with questions, contexts and answers; raises DataError for the first that is none."""
    collected = Collected(where, "row")
    names = (columns.text, columns.pair or "", columns.label or "")
    layout = Layout(list(names), *names, by_position=False)
    for number, row in enumerate(zip(texts, pairs, labels, strict=True), 1):
        collected.add(number, dict(zip(names, row, strict=True)), layout)
    rows = collected.rows(layout)
    assert rows is not None  # only rows without a label are left out, and these have one
    notes += collected.notes()
    return replace(rows, columns=columns)


def _word(label: object, names: list[str] | None) -> str | None:
    """Return a label, or a list of them, as a word, or None if it is missing; ``names`` are those of a ClassLabel."""
    if isinstance(label, list):
        words = [_word(word, names) for word in label]
        return None if None in words else listed(words)
    if names is not None:
        return names[label] if isinstance(label, int) and 0 <= label < len(names) else None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return None if label is None else str(label).strip() or None


def _marks(marks: Mapping[str, object], where: str, row: int) -> str:
    try:
        return of_marks(marks)
    except ValueError as error:
        raise DataError(
            f"{where}, row {row + 1}: the label column {error} holds {marks[str(error)]!r}, neither 0 nor 1. Take it "
            "out of data.label_columns."
        ) from None


def _loaded(path: str, subset: str | None) -> Mapping[str, Any]:
    """Return the splits of a data set; any failure becomes one message."""
    import datasets

    folder = Path(path).expanduser()
    if folder.is_dir():
        return _read_by_library(str(folder), subset, path)
    if reason := unreachable():
        with offline(), _library_offline():
            try:
                return dict(datasets.load_dataset(path, subset))
            except Exception as error:  # as in `_read_by_library`
                if _is_of_subset(error):
                    raise DataError(_told(path, error)) from None
                raise DataError(
                    f"{path}: is not a folder, is not in the hub's cache, and {reason}. {OFFLINE}"
                ) from None
    if not Path(str(datasets.config.HF_DATASETS_CACHE), path.replace("/", "___")).is_dir():
        _refuse_unknown(path)
    return _read_by_library(path, subset, path)


def _read_by_library(source: str, subset: str | None, path: str) -> Mapping[str, Any]:
    import datasets

    try:
        return dict(datasets.load_dataset(source, subset))
    except Exception as error:  # it raises whatever pyarrow, fsspec and the hub raise
        raise DataError(_told(path, error)) from None


@contextmanager
def _library_offline() -> Iterator[None]:
    """Make `datasets`, which has a setting of its own, use only its cache within the block."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _refuse_unknown(path: str) -> None:
    """Ask the hub whether it has a data set, with a short time limit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(path, timeout=10)
    except GatedRepoError:
        raise DataError(f"{path}: requires your consent. Accept its terms on the hub, then: hf auth login.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise DataError(
            f"{path}: the hub has no data set with this id that you may read. Check data.path (owner/name), "
            "or log in for a private one: hf auth login."
        ) from None
    except Exception as error:  # the HTTP library depends on the version
        raise DataError(_told(path, error)) from None


def _is_of_subset(error: Exception) -> bool:
    """Return whether the library requires the name of a subset."""
    return "Config" in str(error).partition("\n")[0] and "subset" not in str(error).partition("\n")[0]


def _told(path: str, error: Exception) -> str:
    """Return a library's error as one message with a remedy."""
    reason = next(iter(str(error).strip().splitlines()), "").rstrip(".") or type(error).__name__
    if "OfflineModeIsEnabled" in reason:
        return f"{path}: is not in the cache, and HF_HUB_OFFLINE forbids a download. Unset it. {OFFLINE}"
    network = isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.startswith(("http", "req"))
    if network:
        return f"{path}: the hub cannot be reached ({reason}). Try again with a network. {OFFLINE}"
    if _is_of_subset(error):
        return f"{path}: {reason}. Name one: data.subset=NAME."
    return f"{path}: cannot be loaded ({reason}). Check data.path and data.subset. {OFFLINE}"
