"""Training rows that the samples leave over, used without their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compress.data.apart import texts_apart
from compress.data.cutting import cut
from compress.data.dataset import Dataset, Split
from compress.data.equal_rows import among, numbers_of
from compress.data.rows import Rows
from compress.wording import counted


def with_leftovers(data: Dataset, train: Rows, chosen: Sequence[Rows], rows: int, seed: int) -> Dataset:
    """Return the data set with up to ``rows`` more unlabelled rows: rows of ``train`` that no split has, seeded.

    ``chosen`` are the rows of the splits as they were read.
    """
    used = among(train.keys, np.concatenate([split.keys for split in chosen]))
    free = np.flatnonzero(used == 0)
    if not len(free):
        note = "No training row is left over to be used without its label: data.unlabelled_rows has no effect."
        return replace(data, notes=(*data.notes, note))
    left, task = _chosen(train.take(free), rows, seed), data.task
    more = texts_apart(left) if task.apart else Split(left.texts, left.pairs, ids=left.ids or None)
    if task.grouped:
        labels = task.encoded([task.encode(label) for label in left.words])
        more = replace(more, labels=task.without_labels(labels), grouped=True)
    note = (
        f"{counted(len(left), 'other training row')} of {len(free):,}, at random, seed {seed}, are used without their "
        "labels: only the teacher labels them."
    )
    unlabelled = more if data.unlabelled is None else data.unlabelled.followed_by(more)
    summary = None if data.summary is None else data.summary.with_unlabelled(len(unlabelled))
    return replace(data, unlabelled=unlabelled, notes=(*data.notes, note), summary=summary)


def _chosen(free: Rows, number: int, seed: int) -> Rows:
    """Return that many rows at random, or whole groups with about as many."""
    if free.groups is not None and number < len(free):
        return free.take(cut(numbers_of(free.groups), np.zeros(len(free)), number, seed)[1])
    return free.take(np.sort(np.random.default_rng(seed).permutation(len(free))[:number]))
