"""The base of all sources, and the one path from raw rows to a `Dataset`.

A source reads `Splits`; `assemble` finds the task, cuts what is missing, samples, encodes the labels and
notes what the report should mention.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from compress.data.apart import row_numbers, text_numbers, texts_apart, without_repeats
from compress.data.cutting import cut, sample
from compress.data.dataset import Dataset, Split
from compress.data.equal_rows import Repeats, among, numbers_of
from compress.data.grouping import numbered, ungrouped
from compress.data.leftovers import with_leftovers
from compress.data.rows import Rows
from compress.data.summary import summarize
from compress.errors import DataError, Fault, RecipeError
from compress.known import NOTHING, Known
from compress.mapped import StoredTexts
from compress.settings import Settings, at_least, between, nearest, spelled
from compress.tasks.base import Array, Task
from compress.tasks.choice import AUTO, TaskChoice
from compress.tasks.label_lists import separated
from compress.tasks.registry import task_class
from compress.wording import counted, shortened

DIFFERENT = 10_000  # labels whose code is remembered
SPLITS = ("train", "validation", "test", "unlabelled")


class Broken(Enum):
    """report: they are used as they are, and noted; repair: they are put right; refuse: the first one is an error."""

    report = "report"
    repair = "repair"
    refuse = "refuse"


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Rows by split; None for a split that the source does not have."""

    name: str
    train: Rows
    validation: Rows | None = None
    test: Rows | None = None
    unlabelled: Rows | None = None
    notes: tuple[str, ...] = ()


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
    kind = _kind(parts, choice.kind)
    parts = _spelled(parts, kind, settings.separator)
    if labelled := list(_labelled(parts).values()):
        kind.check(labelled, asked=choice.kind != AUTO or bool(parts.train.form) or parts.train.labels is None)
    parts = _repaired(parts, kind, settings.broken_labels, notes)
    given = parts.train
    task, unseen = _with_unseen(
        _task(parts, kind, lambda: [settings.labels.get(name, name) for name in names()]), parts
    )
    task = _judged(_pooled(task, choice), choice)
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
    splits = {name: _encoded(rows, task) for name, rows in chosen.items()}
    answered = tuple(name for name, rows in chosen.items() if rows.labels is None)
    if "training" not in answered:
        task = _weighted(task, choice, splits["training"])
        notes += task.doubts(splits["training"].known_labels)
    elif choice.class_weights is not None:
        rule = "has no effect: no training row has a label by which classes are counted"
        raise RecipeError([Fault("task.class_weights", None, rule, "Leave it out.")])
    notes += [*_without_labels(answered), *_repetitions(chosen, parts.unlabelled)]
    data = Dataset(
        parts.name,
        task,
        splits["training"],
        splits["validation"],
        splits["test"],
        None if parts.unlabelled is None else _read(parts.unlabelled, task),
        tuple(notes),
        {spelled(name): label for name, label in settings.labels.items()},
        unseen,
        summarize(chosen, parts.unlabelled, task),
        records,
        answered,
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


def _with_unseen(task: Task, parts: Splits) -> tuple[Task, dict[str, tuple[str, int]]]:
    """Return the task with the labels of all splits, and where those without a training row were read."""
    unseen: dict[str, tuple[str, int]] = {}
    for name, rows in _labelled(parts).items():
        if name != "train":
            for index, word in enumerate(rows.words):
                for label in filter(task.unknown, task.names(word)):
                    place, count = unseen.get(label, (rows.place(index), 0))
                    unseen[label] = place, count + 1
    return (task.extended(unseen) if unseen else task), unseen


def refuse_unseen(data: Dataset) -> None:
    """Raise DataError if a class occurs only in rows that are not trained on."""
    known = [name for name in data.task.output_names if name not in data.unseen]
    for label, (place, count) in data.unseen.items():
        if data.task.can_do_without(label, known):
            continue
        more = f" and {len(known) - 10:,} more" if len(known) > 10 else ""
        others = f" {counted(count - 1, 'more row')} like it." if count > 1 else ""
        raise DataError(
            f"{place}: the label {shortened(label)!r} does not occur in the training rows. "
            f"Known: {', '.join(map(shortened, known[:10]))}{more}. Correct it, or add training rows that have it."
            f"{others}"
        )


def _labelled(parts: Splits) -> dict[str, Rows]:
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {name: rows for name, rows in named.items() if rows is not None and rows.labels is not None}


def _spelled(parts: Splits, kind: type[Task], separator: str | None) -> Splits:
    """Return the parts with labels as the task takes them: lists where a row may have several, else a word in each."""
    parts = _grouped(parts) if kind.grouped else parts if kind.apart else _ungrouped(parts)
    labelled = _labelled(parts)
    if kind.several:
        lists = separated(list(labelled.values()), separator)
        own = zip(labelled.items(), lists, strict=True)
        changed: dict[str, Any] = {name: replace(rows, labels=labels) for (name, rows), labels in own}
        return replace(parts, **changed)
    if separator is not None:
        raise DataError(
            f"data.separator = {separator!r} is for several labels in one field, and the labels are {kind.predicts}. "
            "Leave it out, or set task=multi_label."
        )
    for rows in labelled.values():
        empty = [index for index, word in enumerate(rows.words) if not word or word.startswith(" ")]
        if empty:
            column = f" ({rows.columns.label!r})" if rows.columns else ""
            more = f" {counted(len(empty) - 1, 'more row')} like it." if len(empty) > 1 else ""
            raise DataError(f"{rows.place(empty[0])}: the label{column} is empty. Fill it, or remove the row.{more}")
    return parts


def _named(parts: Splits) -> tuple[Splits, dict[str, int]]:
    """Return the parts with an id for every row, and how many records each part without ids of its own has.

    Raises DataError for an id that stands twice.
    """
    given: dict[str, Rows] = {name: rows for name in SPLITS if (rows := getattr(parts, name)) is not None}
    named: dict[str, Any] = {name: rows.named(name) for name, rows in given.items()}
    _refuse_repeated_ids([rows for rows in given.values() if rows.ids])
    records = {name: int(rows.records[-1]) + 1 if len(rows.records) else len(rows) for name, rows in given.items()}
    return replace(parts, **named), {name: count for name, count in records.items() if not given[name].ids}


def _refuse_repeated_ids(splits: Sequence[Rows]) -> None:
    """Raise DataError for an id of two records; rows that were made of the same record share its id."""
    ends = np.cumsum([len(rows) for rows in splits])

    def found(place: int) -> tuple[Rows, int]:
        split = int(np.searchsorted(ends, place, side="right"))
        return splits[split], place - int(ends[split]) + len(splits[split])

    for followers, first in Repeats.of(numbers_of(chain.from_iterable(rows.ids for rows in splits))).followers():
        for pair in zip(followers.tolist(), first.tolist(), strict=True):
            (rows, index), (others, other) = map(found, pair)
            if (place := rows.place(index)) != (before := others.place(other)):
                raise DataError(
                    f"{place}: the id {shortened(rows.ids[index])!r} is that of {before} too. Give each row an id of "
                    "its own, or leave out data.id."
                )


def _grouped(parts: Splits) -> Splits:
    """Return the parts with the number of each row's group in its label; no two splits share a number."""
    first = 0
    for name in SPLITS:
        rows = getattr(parts, name)
        if rows is not None:
            own, first = numbered(rows, first)
            changed: dict[str, Any] = {name: own}
            parts = replace(parts, **changed)
    return parts


def _ungrouped(parts: Splits) -> Splits:
    rows_of: dict[str, Rows | None] = {name: getattr(parts, name) for name in SPLITS}
    changed: dict[str, Any] = {name: ungrouped(rows) for name, rows in rows_of.items() if rows is not None}
    return replace(parts, **changed)


def _kind(parts: Splits, name: str) -> type[Task]:
    """Return the task that the recipe names, or that the rows or their labels look like."""
    train, form = parts.train, parts.train.form
    if form and name not in (AUTO, form):
        raise DataError(
            f"{train.source}: its rows are written for task={form}, and the recipe has task={name}. "
            f"Set task={form}, or give rows with one label each."
        )
    for rows in (parts.validation, parts.test):
        if rows is not None and rows.form and not form and name in (AUTO, rows.form):
            name = rows.form  # the training rows may be written otherwise
    return task_class(form or name, train.labels)


def _repaired(parts: Splits, kind: type[Task], broken: Broken, notes: list[str]) -> Splits:
    """Return the parts with labels that keep to the task's rule, or note how many do not, as ``broken`` says."""
    if not kind.rule:
        return parts
    names, splits = list(_labelled(parts)), list(_labelled(parts).values())
    right = iter(kind.repaired([label for rows in splits for label in rows.words]))
    for name, rows in zip(names, splits, strict=True):
        labels = [next(right) for _ in rows.words]
        bad = [index for index, (label, word) in enumerate(zip(labels, rows.words, strict=True)) if label != word]
        if not bad:
            continue
        first = bad[0]
        what = f"{rows.place(first)}: {kind.rule}; got {shortened(rows.words[first], 100)!r}"
        count = f"{counted(len(bad), 'row')} of {len(rows):,} in {rows.source}"
        if broken is Broken.refuse:
            more = f" {counted(len(bad) - 1, 'more row')} like it." if len(bad) > 1 else ""
            raise DataError(f"{what}. Correct it, or let it be written right: data.broken_labels=repair.{more}")
        if broken is Broken.repair:
            notes.append(f"{count} had broken labels, which are repaired; the first: {what}.")
            repaired: Any = {name: replace(rows, labels=labels)}
            parts = replace(parts, **repaired)
        else:
            notes.append(
                f"{count} have broken labels, which are kept; the first: {what}. To write them right or to stop at "
                "them: data.broken_labels=repair or refuse."
            )
    return parts


def _task(parts: Splits, kind: type[Task], names: Callable[[], Sequence[str]]) -> Task:
    """Return the task of the training labels, or of the ``names`` of classes where there are none, or say why not."""
    train = parts.train
    if train.labels is None:
        try:
            return kind.of_names(names())
        except ValueError as error:
            raise DataError(
                f"{train.source}: no row has a label, and {error}. Name a teacher that is a finished classifier, or "
                "the classes of one that only answers: teacher.classes=[…], or the words for them: teacher.words={…}."
            ) from None
    labels = train.words
    built_alike = kind.by_token or kind.apart or kind.grouped
    if len(set(labels)) == 1 and not built_alike:
        raise DataError(
            f"{train.source}: every row has the label {shortened(labels[0])!r}; there is nothing to learn. "
            "Give rows of at least two classes, or set data.label to the right column."
        )
    try:
        return kind.of_labels(labels)
    except ValueError:
        _refuse_labels(train, kind)
        raise


def _judged(task: Task, choice: TaskChoice) -> Task:
    """Return the task with the metric that is to decide and the windows that are asked for.

    Raises RecipeError where it has no such metric, or no windows.
    """
    if choice.stride is not None:
        try:
            task = task.overlapping(choice.stride)
        except ValueError as error:
            raise RecipeError([Fault("task.stride", choice.stride, str(error), "Leave it out.")]) from error
    if choice.metric is None:
        return task
    if choice.metric not in task.metric_names:
        rule = f"is not a metric of the task {task.name}"
        raise RecipeError([Fault("task.metric", choice.metric, rule, nearest(choice.metric, task.metric_names))])
    return task.judged_by(choice.metric)


def _pooled(task: Task, choice: TaskChoice) -> Task:
    """Return the task with the pooling of its vectors. Raises RecipeError where it has none, or not that one."""
    if choice.pooling is None:
        return task
    try:
        return task.pooled_by(choice.pooling)
    except ValueError as error:
        raise RecipeError([Fault("task.pooling", choice.pooling, str(error))]) from error


def _weighted(task: Task, choice: TaskChoice, train: Split) -> Task:
    """Return the task with weights of classes. Raises RecipeError where it has no use for them, or not such a class."""
    if choice.class_weights is None:
        return task
    try:
        return task.weighted(choice.weight_of or None, train.known_labels)
    except ValueError as error:
        raise RecipeError([Fault("task.class_weights", None, str(error), "Leave it out, or correct it.")]) from error


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


def _encoded(rows: Rows, task: Task) -> Split:
    """Encode the labels; a label that the task cannot read is refused with its place."""
    if rows.labels is None:
        known = task.encoded([task.encode(task.output_names[0])])
        return replace(_split(rows), labels=np.full((len(rows), *known.shape[1:]), task.missing, known.dtype))
    _refuse_labels(rows, type(task))
    labels = _codes(rows, task)
    if task.apart:
        parted = task.parted(labels, row_numbers(rows), text_numbers(rows))
        split = replace(texts_apart(rows), labels=parted, grouped=True)
        return split if rows.groups is None else without_repeats(split)
    by_token = type(task) if task.by_token else None
    return replace(_split(rows), labels=labels, by_token=by_token, overlap=task.overlap, grouped=task.grouped)


def _codes(rows: Rows, task: Task) -> Array:
    encode = lru_cache(DIFFERENT)(task.encode)
    return task.encoded([encode(label) for label in rows.words])


def _refuse_labels(rows: Rows, task: type[Task]) -> None:
    """Raise DataError if the task cannot read a label, with the first such row and their number."""
    reason_of = lru_cache(DIFFERENT)(task.refusal)
    bad = [index for index, label in enumerate(rows.words) if reason_of(label) is not None]
    if bad and (reason := reason_of(rows.words[bad[0]])) is not None:
        what, remedy = reason
        more = f" {counted(len(bad) - 1, 'more row')} like it." if len(bad) > 1 else ""
        raise DataError(f"{rows.place(bad[0])}: {what} {remedy}{more}")


def _read(rows: Rows, task: Task) -> Split:
    """Return rows without labels, as people wrote them unless they are written for the task."""
    if task.apart:
        return texts_apart(rows)
    texts = rows.texts if rows.form else StoredTexts(map(task.read, rows.texts))
    if not task.grouped:
        return replace(_split(rows), texts=texts)
    return replace(_split(rows), texts=texts, labels=_codes(rows, task), grouped=True)


def _split(rows: Rows) -> Split:
    return Split(rows.texts, rows.pairs, ids=rows.ids or None)


def _repetitions(chosen: dict[str, Rows], unlabelled: Rows | None) -> list[str]:
    """Return notes on texts that occur more than once in the used rows."""
    train, notes = chosen["training"], []
    repeats = Repeats.of(train.keys)
    if repeated := len(train) - int(np.count_nonzero(repeats.count)):
        torn = _torn(train, repeats)
        contradiction = f"; {counted(torn, 'text')} with more than one label" if torn else ""
        notes.append(
            f"Repeated texts: {counted(repeated, 'training row')} after the first (case and white space folded)"
            f"{contradiction}. A repeated row weighs more; remove it from the file if that is not meant."
        )
    for name in ("validation", "test"):
        if leaked := int(among(chosen[name].keys, train.keys).sum()):
            total = len(chosen[name])
            notes.append(
                f"{leaked:,} of {total:,} {name} rows ({leaked / total:.1%}) have a text that is also in training, "
                "which flatters the figures. Remove them from one of the two, or quote both figures."
            )
    if unlabelled is not None and (leaked := int(among(unlabelled.keys, chosen["test"].keys).sum())):
        notes.append(
            f"Unlabelled rows that are test rows too: {leaked:,}; the student trains on what is measured. "
            "Remove them from the unlabelled rows."
        )
    return notes


def _torn(rows: Rows, repeats: Repeats) -> int:
    """Return how many texts that are repeated have more than one label."""
    torn = np.zeros(len(rows), dtype=np.bool_)
    for followers, first in repeats.followers() if rows.labels is not None else ():
        for row, leader in zip(followers.tolist(), first.tolist(), strict=True):
            torn[leader] |= rows.words[row] != rows.words[leader]
    return int(torn.sum())
