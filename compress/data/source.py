"""The base of all sources, and the one way from raw rows to a `Dataset`.

A source reads `Parts`; `assemble` finds the task, cuts what is missing, samples, encodes the labels and
notes all that a reader of the report should know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compress.data.cutting import cut, sample
from compress.data.dataset import Dataset, Split
from compress.data.label_faults import refuse_doubtful_labels
from compress.data.leftovers import with_leftovers
from compress.data.rows import Rows
from compress.wording import counted
from compress.data.summary import summarize
from compress.errors import DataError, Fault
from compress.settings import Settings, at_least, between, spelled
from compress.tasks.base import Task, TaskKind
from compress.tasks.classification import Classification
from compress.tasks.registry import task_of_labels


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a source gives: rows a split, None where it has none."""

    name: str
    train: Rows
    validation: Rows | None = None
    test: Rows | None = None
    unlabelled: Rows | None = None
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Data(Settings):
    """Where rows come from, how many are used, and how a missing split is cut."""

    train_rows: int | None = None  # a seeded, stratified sample of the split; None: all rows
    validation_rows: int | None = None
    test_rows: int | None = None
    validation_share: float = 0.1  # share of the training rows cut off for validation, if none is given
    test_share: float = 0.15  # share of the training rows cut off for the test, if none is given
    labels: dict[Any, str] = field(
        default_factory=dict, metadata={"open": True}
    )  # which of the teacher's labels is which of the data's, as {LABEL_0: bad, LABEL_1: good}
    unlabelled_rows: int = (
        0  # training rows that `train_rows` leaves over, used without labels: the teacher labels them
    )

    def __post_init__(self) -> None:
        """Take the keys of ``labels`` as texts, spelled as YAML spells them: 0 as "0", True as "true"."""
        self.labels = {spelled(key): label for key, label in self.labels.items()}

    def faults(self) -> Iterator[Fault]:
        """Yield faults of the counts and shares."""
        for name in ("train_rows", "validation_rows", "test_rows"):
            yield from at_least(self, name, 1)
        yield from at_least(self, "unlabelled_rows", 0)
        for name in ("validation_share", "test_share"):
            yield from between(self, name, 0, 1, open_low=True, open_high=True)
        if self.validation_share + self.test_share >= 1:
            yield Fault("validation_share", self.validation_share, "leaves no training rows beside data.test_share")

    def read(self) -> Parts:
        """Return the raw rows of each split that there is."""
        raise NotImplementedError

    def load(self, kind: TaskKind, seed: int) -> Dataset:
        """Read the rows and make the data set; raises DataError where they cannot be used."""
        return assemble(self.read(), self, kind, seed)


def assemble(parts: Parts, settings: Data, kind: TaskKind, seed: int) -> Dataset:
    """Make a `Dataset` of raw rows: find the task, cut, sample, encode, count what repeats, add what is left over."""
    given = parts.train
    refuse_doubtful_labels((parts.train, parts.validation, parts.test), kind)
    task, unseen = _with_unseen(_task(parts.train, kind), parts)
    notes = list(parts.notes)
    parts = _completed(parts, settings, task, seed, notes)
    wanted = (
        ("training", parts.train, settings.train_rows),
        ("validation", parts.validation, settings.validation_rows),
        ("test", parts.test, settings.test_rows),
    )
    chosen: dict[str, Rows] = {}
    for name, rows, number in wanted:
        if rows is None:  # not after _completed
            raise ValueError(f"no {name} rows")
        chosen[name] = rows
        if number is not None and number < len(rows):
            how = "stratified" if task.kind is TaskKind.classification else "at random"
            notes.append(f"{number:,} of {len(rows):,} {name} rows, {how}, seed {seed}.")
            chosen[name] = rows.take(sample(_classes(rows, task), number, seed))
        elif number is not None and number > len(rows):
            notes.append(f"{number:,} {name} rows were asked for; there are {len(rows):,}, and all are used.")
    splits = {name: _encoded(rows, task) for name, rows in chosen.items()}
    notes += _repetitions(chosen, parts.unlabelled)
    data = Dataset(
        parts.name,
        task,
        splits["training"],
        splits["validation"],
        splits["test"],
        None if parts.unlabelled is None else _split(parts.unlabelled),
        tuple(notes),
        {spelled(name): label for name, label in settings.labels.items()},
        unseen,
        summarize(chosen, parts.unlabelled, task),
    )
    return with_leftovers(data, given, settings.unlabelled_rows, seed) if settings.unlabelled_rows else data


def _with_unseen(task: Task, parts: Parts) -> tuple[Task, dict[str, tuple[str, int]]]:
    """Return the task with the classes of the other splits too, and where those that no training row has were read."""
    if not isinstance(task, Classification):
        return task, {}
    unseen: dict[str, tuple[str, int]] = {}
    for rows in (parts.validation, parts.test):
        if rows is not None:
            for index, label in enumerate(rows.words):
                if label not in task.labels:
                    place, count = unseen.get(label, (rows.place(index), 0))
                    unseen[label] = place, count + 1
    return (task_of_labels(TaskKind.classification, [*task.labels, *unseen]) if unseen else task), unseen


def refuse_unseen(data: Dataset) -> None:
    """Raise DataError where a class occurs only in rows that nothing learns from."""
    for label, (place, count) in data.unseen.items():
        known = [_short(name) for name in data.task.head_config()["label2id"] if name not in data.unseen]
        more = f" and {len(known) - 10:,} more" if len(known) > 10 else ""
        others = f" {counted(count - 1, 'more row')} like it." if count > 1 else ""
        raise DataError(
            f"{place}: the label {_short(label)!r} does not occur in the training rows. "
            f"Known: {', '.join(known[:10])}{more}. Correct it, or add training rows that have it.{others}"
        )


def _task(train: Rows, kind: TaskKind) -> Task:
    """Return the task of the training labels, or say why there is none."""
    labels = train.words
    first_of: dict[str, int] = {}
    for index, label in enumerate(labels):
        first_of.setdefault(label, index)
    if len(first_of) == 1:
        raise DataError(
            f"{train.source}: every row has the label {labels[0]!r}; there is nothing to learn. "
            "Give rows of at least two classes, or set data.label to the right column."
        )
    try:
        task = task_of_labels(kind, labels)
    except ValueError:
        _refuse_labels(train, [i for i, label in enumerate(labels) if not _is_score(label)], _NOT_A_SCORE)
        raise
    if kind is TaskKind.auto and task.kind is TaskKind.classification and len(first_of) > max(20, len(labels) // 5):
        scores = sum(map(_is_score, first_of))
        hint = ""
        if scores > len(first_of) / 2:
            odd = next((index for label, index in first_of.items() if not _is_score(label)), None)
            hint = "" if odd is None else f" Most are numbers, but not {_short(labels[odd])!r} ({train.place(odd)})."
        raise DataError(
            f"{train.source}: {len(first_of):,} different labels in {counted(len(labels), 'row')} are too many for "
            f"classes.{hint} Set data.label to the right column, put the label first in a file without a header, "
            "or say what is meant: task=regression or task=classification."
        )
    return task


def _completed(parts: Parts, settings: Data, task: Task, seed: int, notes: list[str]) -> Parts:
    """Return the parts with both a validation and a test split, cut from the training rows where missing."""
    whole = len(parts.train)
    if parts.validation is not None and parts.test is None:
        notes.append(
            f"No test split is given: the {counted(len(parts.validation), 'given validation row')} are the test "
            "rows, and validation rows are cut from the training rows, so that choosing a checkpoint never sees "
            "the rows that are measured."
        )
        parts = replace(parts, test=parts.validation, validation=None)

    def without(rows: Rows, name: str, share: float, offset: int) -> tuple[Rows, Rows]:
        stay, off = cut(rows.keys, _classes(rows, task), max(1, round(share * whole)), seed + offset)
        if not len(off):
            raise DataError(
                f"{rows.source}: {counted(len(rows), 'row')} are too few to cut {name} rows from them. "
                f"Give more rows, or {name} rows of their own (data.{name})."
            )
        stratified = "stratified, " if task.kind is TaskKind.classification else ""
        notes.append(
            f"{counted(len(off), f'{name} row')} cut from the {whole:,} given training rows "
            f"({stratified}seed {seed}, equal texts kept together); {len(stay):,} remain for training."
        )
        return rows.take(stay), rows.take(off)

    train, validation, test = parts.train, parts.validation, parts.test
    if test is None:
        train, test = without(train, "test", settings.test_share, 0)
    if validation is None:
        train, validation = without(train, "validation", settings.validation_share, 1)
    return replace(parts, train=train, validation=validation, test=test)


def _classes(rows: Rows, task: Task) -> Sequence[Hashable]:
    return rows.words if task.kind is TaskKind.classification else [0] * len(rows)


_NOT_A_SCORE = "the label {label} is not a finite number.", "Correct it, or ask for task=classification."


def _encoded(rows: Rows, task: Task) -> Split:
    """Encode the labels; one that is no number where scores are meant is refused with its place."""
    codes = {label: _code(label, task) for label in set(rows.words)}
    unknown = {label for label, code in codes.items() if code is None}
    if unknown:
        _refuse_labels(rows, [i for i, label in enumerate(rows.words) if label in unknown], _NOT_A_SCORE)
    kind = np.int64 if task.kind is TaskKind.classification else np.float32
    return replace(_split(rows), labels=np.asarray([codes[label] for label in rows.words], dtype=kind))


def _code(label: str, task: Task) -> float | None:
    try:
        return task.encode(label)
    except ValueError:
        return None


def _refuse_labels(rows: Rows, bad: list[int], words: tuple[str, str]) -> None:
    if not bad:
        return
    what, remedy = words
    more = f" {counted(len(bad) - 1, 'more row')} like it." if len(bad) > 1 else ""
    raise DataError(f"{rows.place(bad[0])}: {what.format(label=repr(_short(rows.words[bad[0]])))} {remedy}{more}")


def _short(label: str) -> str:
    return label if len(label) <= 40 else label[:39] + "…"


def _split(rows: Rows) -> Split:
    return Split(tuple(rows.texts), None if rows.pairs is None else tuple(rows.pairs))


def _is_score(label: str) -> bool:
    try:
        return bool(np.isfinite(float(label)))
    except ValueError:
        return False


def _repetitions(chosen: dict[str, Rows], unlabelled: Rows | None) -> list[str]:
    """Return notes on texts that occur twice, in the rows that are used."""
    train, notes = chosen["training"], []
    seen: dict[str, set[str]] = {}
    for key, label in zip(train.keys, train.words, strict=True):
        seen.setdefault(key, set()).add(label)
    if repeated := len(train) - len(seen):
        torn = sum(len(labels) > 1 for labels in seen.values())
        contradiction = f"; {counted(torn, 'text')} with more than one label" if torn else ""
        notes.append(
            f"Repeated texts: {counted(repeated, 'training row')} after the first (case and white space folded)"
            f"{contradiction}. A repeated row weighs more; remove it from the file if that is not meant."
        )
    for name in ("validation", "test"):
        if leaked := sum(key in seen for key in chosen[name].keys):
            total = len(chosen[name])
            notes.append(
                f"{leaked:,} of {total:,} {name} rows ({leaked / total:.1%}) have a text that is also in training, "
                "which flatters the figures. Remove them from one of the two, or quote both figures."
            )
    if unlabelled is not None:
        measured = set(chosen["test"].keys)
        if leaked := Counter(key in measured for key in unlabelled.keys)[True]:
            notes.append(
                f"Unlabelled rows that are test rows too: {leaked:,}; the student trains on what is measured. "
                "Remove them from the unlabelled rows."
            )
    return notes
