"""What tags are worth: spans and words that are right, counted by row so that rows can be drawn again and again.

A span is right where its type, its first and its last word are, as in conlleval and ``seqeval``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.tasks.base import Array, ByClass
from compress.tasks.functions import UNLABELLED
from compress.tasks.tag_schemes import Scheme, Spans


@dataclass(frozen=True)
class Counts:
    """Counts by row: of spans by type, or of words by tag where tags mark no spans, and of words.

    ``right``, ``found`` and ``true`` (rows, types): how many are found and right, found, and in the labels.
    ``words`` (rows, 2): words with the right tag, and words that have a label.
    """

    right: Array
    found: Array
    true: Array
    words: Array

    @property
    def columns(self) -> Array:
        """All of them side by side (rows, sums)."""
        return np.concatenate([self.right, self.found, self.true, self.words], axis=1).astype(np.float64)


def count(spans: Spans, predicted: Array, labels: Array) -> Counts:
    """Return the counts of rows; tags' numbers (rows, words), -1 where nothing is predicted, `UNLABELLED` beyond."""
    known = labels != UNLABELLED
    predicted, true = np.where(known, predicted, -1), np.where(known, labels, -1)
    same = known & (predicted == true)
    shape = (len(labels), len(spans.types))
    if spans.scheme is Scheme.raw:
        found, there, right = predicted >= 0, known, same
        kind, kind_found = true, predicted
    else:
        (found, end), (there, true_end) = spans.bounds(predicted), spans.bounds(true)
        kind, kind_found = spans.kinds[true], spans.kinds[predicted]
        right = found & there & (kind == kind_found) & (end == true_end)

    def summed(which: Array, kinds: Array) -> Array:
        rows, words = np.nonzero(which)
        cells = rows * shape[1] + kinds[rows, words]
        return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)

    words = np.stack([same.sum(1), known.sum(1)], axis=1)
    return Counts(summed(right, kind), summed(found, kind_found), summed(there, kind), words)


def figures(scheme: Scheme, sums: Array) -> dict[str, Array]:
    """Return metrics (samples,) of summed `Counts.columns` (samples, sums).

    Of spans: micro F1, precision and recall; of raw tags: macro F1 over the tags that the labels have. And the share
    of words with the right tag.
    """
    *parts, words = np.split(sums, _cuts(sums.shape[1]), axis=1)
    accuracy = _share(words[:, 0], words[:, 1])
    if scheme is Scheme.raw:
        right, found, true = parts
        by_tag = _share(2 * right, found + true)
        return {"accuracy": accuracy, "macro_f1": _share((by_tag * (true > 0)).sum(1), (true > 0).sum(1))}
    right, found, true = (part.sum(1) for part in parts)
    return {
        "f1": _share(2 * right, found + true),
        "precision": _share(right, found),
        "recall": _share(right, true),
        "accuracy": accuracy,
    }


def f1_of_type(sums: Array, number: int) -> Array:
    """Return the F1 (samples,) of one type in summed `Counts.columns` (samples, sums)."""
    right, found, true, _ = np.split(sums, _cuts(sums.shape[1]), axis=1)
    return _share(2 * right[:, number], found[:, number] + true[:, number])


def by_type(spans: Spans, counts: Counts) -> list[ByClass]:
    """Return precision, recall, F1 and number of each type, or raw tag."""
    right, found, true = (part.sum(0) for part in (counts.right, counts.found, counts.true))
    columns = true, found, _share(right, found), _share(right, true), _share(2 * right, found + true)
    return [
        ByClass(label=name, rows=int(rows), answered=int(answered), precision=float(p), recall=float(r), f1=float(f1))
        for name, rows, answered, p, r, f1 in zip(spans.types, *columns, strict=True)
    ]


def _cuts(width: int) -> list[int]:
    types = (width - 2) // 3
    return [types, 2 * types, 3 * types]


def _share(part: Array, whole: Array) -> Array:
    """Return part / whole; 0 where there is none."""
    found: Array = np.divide(part, whole, out=np.zeros(np.shape(part), dtype=np.float64), where=np.asarray(whole) > 0)
    return found
