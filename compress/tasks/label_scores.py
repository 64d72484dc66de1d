"""What several labels per row are worth: F1 over all labels and by label, average precision, exact rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compress.tasks.base import Array
from compress.tasks.statistics import bootstrap, wilson


@dataclass(frozen=True)
class LabelScores:
    """Answers and truth on the same rows.

    ``scores`` (rows, labels) rank rows for a label, ``given`` (rows, labels) says which labels are answered, ``labels``
    (rows, labels) which are true: 1, 0, or NaN for a label that is not known, which counts nowhere.
    """

    scores: Array
    given: Array
    labels: Array

    @cached_property
    def known(self) -> Array:
        """Which labels are known (rows, labels)."""
        known: Array = ~np.isnan(self.labels)
        return known

    @cached_property
    def true(self) -> Array:
        """Which labels are true (rows, labels)."""
        true: Array = np.nan_to_num(self.labels) > 0
        return true

    @cached_property
    def counts(self) -> Array:
        """For each row and label: whether it is rightly given, and given plus true; (rows, 2, labels)."""
        given = self.given & self.known
        return np.stack([given & self.true, given.astype(np.int64) + self.true], axis=1).astype(np.float64)

    @cached_property
    def exact(self) -> Array:
        """Which rows have exactly their labels (rows,)."""
        right: Array = ((self.given == self.true) | ~self.known).all(-1)
        return right

    def metrics(self) -> dict[str, float]:
        """Return all metrics.

        ``f1_micro`` pools all labels; ``f1_macro`` and ``average_precision`` are means over the labels that occur;
        ``subset_accuracy`` is the share of rows with exactly their labels.
        """
        return self.of_rows(np.arange(len(self.labels)))

    def of_rows(self, rows: Array) -> dict[str, float]:
        """Return `metrics` of rows, given by number; a row may come more than once."""
        return _from_counts(self.counts[rows].sum(0), self.true[rows].sum(0)) | {
            "average_precision": self._average_precision(np.bincount(rows, minlength=len(self.labels))),
            "subset_accuracy": float(self.exact[rows].mean()),
        }

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals over rows, and Wilson's for the share of exact rows."""
        rows = len(self.labels)
        return bootstrap(self.of_rows, rows) | {"subset_accuracy": wilson(int(self.exact.sum()), rows)}

    def by_label(self) -> list[dict[str, float]]:
        """Return precision, recall, F1, average precision and rows with it (``support``) for each label, in order."""
        right, sizes = self.counts.sum(0)
        support, once = self.true.sum(0), np.ones(len(self.labels))
        answered = sizes - support
        return [
            {
                "precision": float(right[n] / max(answered[n], 1)),
                "recall": float(right[n] / max(support[n], 1)),
                "f1": float(2 * right[n] / max(sizes[n], 1)),
                "average_precision": self._of_label(n, once),
                "support": float(support[n]),
            }
            for n in range(self.labels.shape[1])
        ]

    def _average_precision(self, weights: Array) -> float:
        """Return the mean over labels that occur, rows counted ``weights`` times."""
        there = [n for n in range(self.labels.shape[1]) if (weights * self.true[:, n]).sum() > 0]
        return float(np.mean([self._of_label(n, weights) for n in there])) if there else 0.0

    def _of_label(self, label: int, weights: Array) -> float:
        """Return the sum over thresholds of precision times the recall gained; rows of equal score are one step."""
        order, ends = self._orders[label]
        counted = weights[order] * self.known[order, label]
        true = np.cumsum(counted * self.true[order, label])[ends]
        answered = np.cumsum(counted)[ends]
        if not len(true) or true[-1] == 0:
            return 0.0
        gained = np.diff(true, prepend=0)
        return float((gained * true / np.maximum(answered, 1)).sum() / true[-1])

    @cached_property
    def _orders(self) -> list[tuple[Array, Array]]:
        """For each label: rows by falling score, and where rows of one score end."""
        found = []
        for column in self.scores.T:
            order = np.argsort(-column, kind="stable")
            found.append((order, np.flatnonzero(np.diff(column[order], append=np.nan) != 0)))
        return found


def _from_counts(counts: Array, support: Array) -> dict[str, float]:
    """Return both kinds of F1 of sums over rows: ``counts`` (2, labels), rows with each label (labels,)."""
    right, sizes = counts
    by_label = 2 * right / np.maximum(sizes, 1)
    return {
        "f1_micro": float(2 * right.sum() / max(sizes.sum(), 1)),
        "f1_macro": float(by_label[support > 0].mean()) if (support > 0).any() else 0.0,
    }
