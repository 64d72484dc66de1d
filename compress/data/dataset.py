"""The rows of a run: three splits, perhaps unlabelled rows, and notes about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from compress.data.scripts import Segmentation
from compress.data.summary import Summary
from compress.mapped import StoredTexts
from compress.tasks.base import Array, Task


@dataclass(frozen=True)
class Split:
    """Rows in order; their texts are on disk. ``labels`` are encoded by the task; None for unlabelled rows."""

    texts: Sequence[str]
    pairs: Sequence[str] | None = None  # second texts, same length, for pair tasks
    labels: Array | None = None  # (rows, …): int64 for classes, float32 for scores; unlabelled: None, or groups alone
    by_token: type[Task] | None = None  # the task that knows which tokens of a row answer; None: the row as one
    grouped: bool = False  # whether rows with the same number in the first column of the labels belong together
    overlap: int | None = None  # tokens that a row's windows share, where the task reads it in some: `Task.overlap`
    ids: Sequence[str] | None = None  # what names each row for a teacher that keeps its answers; "": nothing does

    def __post_init__(self) -> None:
        for name in ("texts", "pairs", "ids"):
            texts = getattr(self, name)
            if texts is not None and not isinstance(texts, StoredTexts):
                object.__setattr__(self, name, StoredTexts(texts))

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every text and label, in order."""
        digest = hashlib.sha256()
        for column in (self.texts, self.pairs or ()):
            for text in column:
                digest.update(text.encode() + b"\x00")
            digest.update(b"\x01")
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def all_texts(self) -> Iterator[str]:
        """Yield the first texts of all rows, then the second ones of pairs."""
        return chain(self.texts, self.pairs or ())

    def take(self, rows: Array) -> Split:
        """Return the rows at these positions, in this order; a row brings those with it that belong together."""
        if self.groups is not None:
            rows = completed(rows, self.groups)
        stored = {name: getattr(self, name) for name in ("texts", "pairs", "ids")}
        taken: dict[str, Any] = {name: None if texts is None else texts.take(rows) for name, texts in stored.items()}
        return replace(self, **taken, labels=None if self.labels is None else self.labels[rows])

    def followed_by(self, more: Split, missing: float = np.nan) -> Split:
        """Return these rows, then unlabelled ones: ``missing`` where these rows have labels, and ``more`` no groups."""
        labels = self.labels
        if labels is not None:
            without = np.full((len(more), *labels.shape[1:]), missing, labels.dtype)
            labels = np.concatenate([labels, without if more.labels is None else more.labels])
        pairs = None if self.pairs is None or more.pairs is None else StoredTexts(chain(self.pairs, more.pairs))
        texts = StoredTexts(chain(self.texts, more.texts))
        return Split(texts, pairs, labels, self.by_token, self.grouped, self.overlap, self._ids_with(more))

    def joined(self, more: Split, missing: float) -> Split:
        """Return these rows, then ``more``, all with their labels; ``missing`` fills up those of shorter rows."""
        parts = [self.known_labels, more.known_labels]
        widths = [part.shape[1:] for part in parts]
        if widths[0] != widths[1]:
            widest = max(width[0] for width in widths)
            parts = [
                np.pad(part, ((0, 0), (0, widest - part.shape[1])), constant_values=part.dtype.type(missing))
                for part in parts
            ]
        pairs = None if self.pairs is None or more.pairs is None else StoredTexts(chain(self.pairs, more.pairs))
        texts, labels = StoredTexts(chain(self.texts, more.texts)), np.concatenate(parts)
        return Split(texts, pairs, labels, self.by_token, self.grouped, self.overlap, self._ids_with(more))

    def _ids_with(self, more: Split) -> Sequence[str] | None:
        """Return the ids of these rows, then of ``more``."""
        if self.ids is None and more.ids is None:
            return None
        return StoredTexts(chain.from_iterable(rows.ids or [""] * len(rows) for rows in (self, more)))

    @property
    def count(self) -> int:
        """The number of rows, or of groups of rows that belong together: of what is drawn, and judged."""
        return len(self) if self.groups is None else int(self.groups.max(initial=-1)) + 1

    def steps(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""
        return -(-self.count // batch_size)

    @cached_property
    def groups(self) -> Array | None:
        """A number for each row (rows,) that rows which belong together share; None where each stands for itself."""
        return group_numbers(self.labels) if self.grouped and self.labels is not None else None

    @property
    def known_labels(self) -> Array:
        """The labels; raises ValueError on unlabelled rows."""
        if self.labels is None:
            raise ValueError("these rows have no labels")
        return self.labels


def group_numbers(labels: Array) -> Array:
    """Return the number of each row's group, 0 for the first: rows share one where the first column of labels is equal.

    A row without a label has a group of its own.
    """
    first = labels[:, 0].astype(np.float64)
    alone = np.isnan(first)
    keys = np.where(alone, -1.0 - np.arange(len(first)), first)  # numbers of rows are not negative
    _, where, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(where))  # by the first row of each
    numbers: Array = order[inverse]
    return numbers


def completed(rows: Array, groups: Array) -> Array:
    """Return positions in their order with those of the same groups behind the first of each, every one once."""
    members = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[members], np.arange(groups.max() + 2))
    wanted = dict.fromkeys(int(groups[row]) for row in rows)
    found: Array = np.concatenate([members[starts[group] : starts[group + 1]] for group in wanted])
    return found


@dataclass(frozen=True)
class Dataset:
    """All rows of a run, with their task."""

    name: str
    task: Task
    train: Split
    validation: Split
    test: Split
    unlabelled: Split | None = None
    notes: tuple[str, ...] = field(default=())  # what was cut, cleaned or found, one sentence each
    label_map: Mapping[str, str] = field(default_factory=dict)  # a model's label -> the data's, as the user sets it
    unseen: Mapping[str, tuple[str, int]] = field(
        default_factory=dict
    )  # labels without a training row -> where the first of their rows was read, and how many there are
    summary: Summary | None = None  # how the rows were read, if a source read them
    records: Mapping[str, int] = field(default_factory=dict)  # read from each source without ids, by its part
    answered: tuple[str, ...] = ()  # splits whose rows have no label, in whose place the teacher's answers are put
    words: Segmentation = Segmentation.letters  # what counts as a word where no space divides them

    @property
    def transfer(self) -> Split:
        """The rows that distillation uses: training rows, then unlabelled ones (label `Task.missing`)."""
        return self.train if self.unlabelled is None else self.train.followed_by(self.unlabelled, self.task.missing)

    @property
    def pairs(self) -> bool:
        """Whether rows are two texts."""
        return self.train.pairs is not None

    @property
    def fingerprint(self) -> str:
        """A hash of all splits and of the task."""
        splits = [self.train, self.validation, self.test, *([self.unlabelled] if self.unlabelled else [])]
        return hashlib.sha256("".join([repr(self.task), *(s.fingerprint for s in splits)]).encode()).hexdigest()
