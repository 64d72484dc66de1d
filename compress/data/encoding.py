"""Rows as splits of a data set: the task encodes their labels."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from compress.data.apart import pair_numbers, row_numbers, text_numbers, texts_apart, without_repeats
from compress.data.dataset import Split
from compress.data.rows import Rows
from compress.errors import DataError
from compress.mapped import StoredTexts
from compress.tasks.base import Array, Task
from compress.wording import counted

DIFFERENT = 10_000  # labels whose code is remembered


def encoded(rows: Rows, task: Task) -> Split:
    """Encode the labels; a label that the task cannot read is refused with its place."""
    if rows.labels is None and task.apart:
        return _without_scores(rows, task)
    if rows.labels is None:
        known = task.encoded([task.encode(task.output_names[0])])
        return replace(_split(rows), labels=np.full((len(rows), *known.shape[1:]), task.missing, known.dtype))
    refuse_labels(rows, type(task))
    labels = _codes(rows, task)
    if task.apart:
        parted = task.parted(labels, row_numbers(rows), text_numbers(rows))
        split = replace(texts_apart(rows), labels=parted, grouped=True)
        return split if rows.groups is None else without_repeats(split)
    by_token = type(task) if task.by_token else None
    return replace(_split(rows), labels=labels, by_token=by_token, overlap=task.overlap, grouped=task.grouped)


def _without_scores(rows: Rows, task: Task) -> Split:
    """Return texts whose rows have no score yet; of single texts, two that follow each other are a row."""
    split, numbers = texts_apart(rows), text_numbers(rows)
    two = numbers.ravel()[: len(split) // 2 * 2].reshape(-1, 2)
    own = pair_numbers(zip(split.texts[::2], split.texts[1::2], strict=False))
    labels = task.parted(np.full(len(two), task.missing), own, two)
    return replace(split.take(np.arange(two.size)), labels=labels, grouped=True)


def _codes(rows: Rows, task: Task) -> Array:
    encode = lru_cache(DIFFERENT)(task.encode)
    return task.encoded([encode(label) for label in rows.words])


def refuse_labels(rows: Rows, task: type[Task]) -> None:
    """Raise DataError if the task cannot read a label, with the first such row and their number."""
    reason_of = lru_cache(DIFFERENT)(task.refusal)
    bad = [index for index, label in enumerate(rows.words) if reason_of(label) is not None]
    if bad and (reason := reason_of(rows.words[bad[0]])) is not None:
        what, remedy = reason
        more = f" {counted(len(bad) - 1, 'more row')} like it." if len(bad) > 1 else ""
        raise DataError(f"{rows.place(bad[0])}: {what} {remedy}{more}")


def without_labels(rows: Rows, task: Task) -> Split:
    """Return rows without labels, as people wrote them unless they are written for the task."""
    if task.apart:
        return texts_apart(rows)
    texts = rows.texts if rows.form else StoredTexts(map(task.read, rows.texts))
    if not task.grouped:
        return replace(_split(rows), texts=texts)
    return replace(_split(rows), texts=texts, labels=_codes(rows, task), grouped=True)


def _split(rows: Rows) -> Split:
    return Split(rows.texts, rows.pairs, ids=rows.ids or None)
