"""The base of all sources, and the one path from raw rows to a `Dataset`.

A source reads `Splits`; `assemble` finds the task, cuts what is missing, samples, encodes the labels and
notes what the report should mention.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compress.data.cutting import cut, sample
from compress.data.dataset import Dataset
from compress.data.encoding import encoded, without_labels
from compress.data.equal_rows import numbers_of
from compress.data.jieba_words import is_installed
from compress.data.labels import (
    Broken,
    judged,
    kind_of_rows,
    pooled,
    repaired,
    spelled_for,
    task_of,
    weighted,
    with_unseen,
)
from compress.data.leftovers import with_leftovers
from compress.data.repetitions import refuse_repeated_ids, repetitions
from compress.data.rows import Rows
from compress.data.scripts import Segmentation
from compress.data.splits import SPLITS, Splits
from compress.data.summary import summarize
from compress.errors import DISTRIBUTION, DataError, Fault, RecipeError
from compress.known import NOTHING, Known
from compress.settings import Settings, at_least, between, spelled
from compress.tasks.base import Array, Task
from compress.tasks.choice import AUTO, TaskChoice
from compress.wording import counted


@dataclass(kw_only=True)
class Data(Settings):
    """The origin of the rows, how many are used, and how missing splits are cut."""

    train_rows: int | None = None  # a seeded, stratified sample of the split; default: all rows
    validation_rows: int | None = None
    test_rows: int | None = None
    validation_share: float = 0.1  # share of the training rows cut off for validation, if none is given
    test_share: float = 0.15  # share of the training rows cut off for the test, if none is given
    labels: dict[Any, str] = field(
        default_factory=dict, metadata={"open": True}
    )  # the data's label for each of the teacher's, as {LABEL_0: bad, LABEL_1: good}
    broken_labels: Broken = Broken.report  # labels that break their task's rule, as BIO: report, repair or refuse
    separator: str | None = (
        None  # several labels in one field: the sign between them; default: recognised; "": a field holds one
    )
    words: Segmentation = Segmentation.letters  # where no space divides words: letters, or jieba (Chinese)
    unlabelled_rows: int = (
        0  # training rows that `train_rows` leaves over, used without labels: the teacher labels them
    )

    def __post_init__(self) -> None:
        """Turn the keys of ``labels`` into text as YAML writes them: 0 as "0", True as "true"."""
        self.labels = {spelled(key): label for key, label in self.labels.items()}

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check counts and shares."""
        for name in ("train_rows", "validation_rows", "test_rows"):
            yield from at_least(self, name, 1)
        yield from at_least(self, "unlabelled_rows", 0)
        for name in ("validation_share", "test_share"):
            yield from between(self, name, 0, 1, open_low=True, open_high=True)
        if self.separator is not None and (sign := self.separator) and (sign.isalnum() or '"' in sign):
            yield Fault("separator", sign, "must be a sign between names, as | or ;")
        if self.words is Segmentation.jieba and not is_installed():
            remedy = f"Install it: pip install '{DISTRIBUTION}[chinese]'. Or leave it at letters."
            yield Fault("words", self.words.value, "needs the package jieba", remedy)
        if self.validation_share + self.test_share >= 1:
            yield Fault("validation_share", self.validation_share, "leaves no training rows beside data.test_share")

    def read(self) -> Splits:
        """Return the raw rows of each split."""
        raise NotImplementedError

    def read_for(self, task: str) -> Splits:
        """Return the raw rows of each split, as the task of that name may have them; see `Task.apart`."""
        return self.read()

    def load(self, task: str | TaskChoice, seed: int, names: Callable[[], Sequence[str]] = tuple) -> Dataset:
        """Read the rows and make the data set, for a task or the name of one.

        ``names`` are the classes that a teacher knows, which is asked where no training row has a label. Raises
        DataError if the rows cannot be used, RecipeError where ``task`` does not fit them.
        """
        choice = TaskChoice.of(task)
        return assemble(self.read_for(choice.kind), self, choice, seed, names)


def assemble(
    parts: Splits, settings: Data, choice: TaskChoice, seed: int, names: Callable[[], Sequence[str]] = tuple
) -> Dataset:
    """Make a `Dataset` from raw rows: find the task, cut, sample, encode, count repeats, add leftover rows."""
    notes = list(parts.notes)
    parts, records = _named(parts)
    kind = kind_of_rows(parts, choice.kind)
    parts = spelled_for(parts, kind, settings.separator)
    if labelled := list(parts.labelled().values()):
        kind.check(labelled, asked=choice.kind != AUTO or bool(parts.train.form) or parts.train.labels is None)
    parts = repaired(parts, kind, settings.broken_labels, notes)
    given = parts.train
    task, unseen = with_unseen(
        task_of(parts, kind, lambda: [settings.labels.get(name, name) for name in names()]), parts
    )
    task = judged(pooled(task, choice), choice)
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
            chosen[name] = _sampled(rows, name, number, task, seed, notes)
        elif number is not None and number > len(rows):
            notes.append(f"{number:,} {name} rows were asked for; there are {len(rows):,}, and all are used.")
    splits = {name: encoded(rows, task) for name, rows in chosen.items()}
    answered = tuple(name for name, rows in chosen.items() if rows.labels is None)
    if "training" not in answered:
        task = weighted(task, choice, splits["training"])
        notes += task.doubts(splits["training"].known_labels)
    elif choice.class_weights is not None:
        rule = "has no effect: no training row has a label by which classes are counted"
        raise RecipeError([Fault("task.class_weights", None, rule, "Leave it out.")])
    notes += [*_without_labels(answered), *repetitions(chosen, parts.unlabelled)]
    data = Dataset(
        parts.name,
        task,
        splits["training"],
        splits["validation"],
        splits["test"],
        None if parts.unlabelled is None else without_labels(parts.unlabelled, task),
        tuple(notes),
        {spelled(name): label for name, label in settings.labels.items()},
        unseen,
        summarize(chosen, parts.unlabelled, task),
        records,
        answered,
        settings.words,
    )
    return (
        with_leftovers(data, given, list(chosen.values()), settings.unlabelled_rows, seed)
        if settings.unlabelled_rows
        else data
    )


def _sampled(rows: Rows, name: str, number: int, task: Task, seed: int, notes: list[str]) -> Rows:
    """Return that many of the rows, stratified; where rows belong to groups, whole groups with about as many rows."""
    if rows.groups is None:
        how = "stratified" if _stratifies(rows, task) else "at random"
        notes.append(f"{number:,} of {len(rows):,} {name} rows, {how}, seed {seed}.")
        return rows.take(sample(_classes(rows, task), number, seed))
    _, some = cut(numbers_of(rows.groups), np.zeros(len(rows)), number, seed)
    if not len(some):
        short = f"data.{'train' if name == 'training' else name}_rows"
        raise DataError(f"{rows.source}: {short} = {number} is less than the rows of any group. Raise it.")
    taken = rows.take(some)
    notes.append(
        f"{len(taken):,} of {len(rows):,} {name} rows, whole groups ({len(set(taken.groups or ())):,} of "
        f"{len(set(rows.groups)):,}) at random, seed {seed}."
    )
    return taken


def _named(parts: Splits) -> tuple[Splits, dict[str, int]]:
    """Return the parts with an id for every row, and how many records each part without ids of its own has.

    Raises DataError for an id that stands twice.
    """
    given: dict[str, Rows] = {name: rows for name in SPLITS if (rows := getattr(parts, name)) is not None}
    named: dict[str, Any] = {name: rows.named(name) for name, rows in given.items()}
    refuse_repeated_ids([rows for rows in given.values() if rows.ids])
    records = {name: int(rows.records[-1]) + 1 if len(rows.records) else len(rows) for name, rows in given.items()}
    return replace(parts, **named), {name: count for name, count in records.items() if not given[name].ids}


def _completed(parts: Splits, settings: Data, task: Task, seed: int, notes: list[str]) -> Splits:
    """Return the parts with a validation and a test split, cut from the training rows if missing."""
    whole = len(parts.train)
    if parts.validation is not None and parts.test is None:
        notes.append(
            f"No test split is given: the {counted(len(parts.validation), 'given validation row')} are the test "
            "rows, and validation rows are cut from the training rows, so that choosing a checkpoint never sees "
            "the rows that are measured."
        )
        parts = replace(parts, test=parts.validation, validation=None)

    def without(rows: Rows, name: str, share: float, offset: int) -> tuple[Rows, Rows]:
        together = rows.groups or task.cut_by(rows)
        keys = rows.keys if together is None else numbers_of(together)
        stay, off = cut(keys, _classes(rows, task), max(1, round(share * whole)), seed + offset)
        if not len(off):
            raise DataError(
                f"{rows.source}: {counted(len(rows), 'row')} cannot be cut into training and {name} rows. "
                f"Give more rows, or {name} rows of their own (data.{name})."
            )
        stratified = "stratified, " if _stratifies(rows, task) else ""
        what = "equal texts" if rows.groups is None else "groups"
        notes.append(
            f"{counted(len(off), f'{name} row')} cut from the {whole:,} given training rows "
            f"({stratified}seed {seed}, {what} kept together); {len(stay):,} remain for training."
        )
        return rows.take(stay), rows.take(off)

    train, validation, test = parts.train, parts.validation, parts.test
    if test is None:
        train, test = without(train, "test", settings.test_share, 0)
    if validation is None:
        train, validation = without(train, "validation", settings.validation_share, 1)
    return replace(parts, train=train, validation=validation, test=test)


def _classes(rows: Rows, task: Task) -> Sequence[Hashable] | Array:
    classes = None if rows.labels is None else task.classes(rows.labels)
    return np.zeros(len(rows), np.int8) if classes is None else classes


def _stratifies(rows: Rows, task: Task) -> bool:
    return rows.labels is not None and task.classes(rows.labels) is not None


def _without_labels(answered: Sequence[str]) -> Iterator[str]:
    """Yield what cannot be known where splits have no labels."""
    if "training" in answered:
        yield (
            "No training row has a label: the teacher's answers take the place of labels, also for hard losses, for "
            "the student trained on labels alone and for TF-IDF."
        )
    if "test" in answered:
        yield (
            "No test row has a label: every figure compares with the teacher's answers. Whether those are right, and "
            "whether a student is better than its teacher, cannot be known. Label some rows: data.test."
        )
    elif "validation" in answered:
        yield "No validation row has a label: what is kept and recommended is what agrees with the teacher."
