"""The labels of all splits: written as a task takes them, repaired, and the task that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from compress.data.dataset import Dataset, Split
from compress.data.encoding import refuse_labels
from compress.data.grouping import numbered, ungrouped
from compress.data.rows import Rows
from compress.data.splits import SPLITS, Splits
from compress.errors import DataError, Fault, RecipeError
from compress.settings import nearest
from compress.tasks.base import Task
from compress.tasks.choice import AUTO, TaskChoice
from compress.tasks.label_lists import separated
from compress.tasks.registry import task_class
from compress.wording import counted, shortened


class Broken(Enum):
    """report: they are used as they are, and noted; repair: they are put right; refuse: the first one is an error."""

    report = "report"
    repair = "repair"
    refuse = "refuse"


def kind_of_rows(parts: Splits, name: str) -> type[Task]:
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


def spelled_for(parts: Splits, kind: type[Task], separator: str | None) -> Splits:
    """Return the parts with labels as the task takes them: lists where a row may have several, else a word in each."""
    parts = _grouped(parts) if kind.grouped else parts if kind.apart else _ungrouped(parts)
    labelled = parts.labelled()
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


def repaired(parts: Splits, kind: type[Task], broken: Broken, notes: list[str]) -> Splits:
    """Return the parts with labels that keep to the task's rule, or note how many do not, as ``broken`` says."""
    if not kind.rule:
        return parts
    names, splits = list(parts.labelled()), list(parts.labelled().values())
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


def task_of(parts: Splits, kind: type[Task], names: Callable[[], Sequence[str]]) -> Task:
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
        refuse_labels(train, kind)
        raise


def with_unseen(task: Task, parts: Splits) -> tuple[Task, dict[str, tuple[str, int]]]:
    """Return the task with the labels of all splits, and where those without a training row were read."""
    unseen: dict[str, tuple[str, int]] = {}
    for name, rows in parts.labelled().items():
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


def judged(task: Task, choice: TaskChoice) -> Task:
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


def pooled(task: Task, choice: TaskChoice) -> Task:
    """Return the task with the pooling of its vectors. Raises RecipeError where it has none, or not that one."""
    if choice.pooling is None:
        return task
    try:
        return task.pooled_by(choice.pooling)
    except ValueError as error:
        raise RecipeError([Fault("task.pooling", choice.pooling, str(error))]) from error


def weighted(task: Task, choice: TaskChoice, train: Split) -> Task:
    """Return the task with weights of classes. Raises RecipeError where it has no use for them, or not such a class."""
    if choice.class_weights is None:
        return task
    try:
        return task.weighted(choice.weight_of or None, train.known_labels)
    except ValueError as error:
        raise RecipeError([Fault("task.class_weights", None, str(error), "Leave it out, or correct it.")]) from error
