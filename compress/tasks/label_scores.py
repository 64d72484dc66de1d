"""What several labels per row are worth: F1 over all labels and by label, average precision, exact rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compress.tasks.base import Array, ByClass
from compress.tasks.paired import resampled
from compress.tasks.statistics import wilson

EXACT = "subset_accuracy"
METRICS = ("micro_f1", "macro_f1", "average_precision", EXACT)
F1_OF = "f1:"  # before the label whose F1 it is
SAMPLES = 500  # of an interval


@dataclass(frozen=True)
class LabelScores:
    """Answers and truth on the same rows.

    ``scores`` (rows, labels) rank rows for a label, ``given`` (rows, labels) says which labels are answered, ``labels``
    (rows, labels) which are true: 1, 0, or NaN for a label that is not known, which counts nowhere. ``names`` are the
    labels'.
    """

    names: tuple[str, ...]
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
    def exact(self) -> Array:
        """Which rows have exactly their labels (rows,)."""
        right: Array = ((self.given == self.true) | ~self.known).all(-1)
        return right

    def metrics(self, names: Iterable[str]) -> dict[str, float]:
        """Return metrics of all rows.

        ``micro_f1`` pools all labels; ``macro_f1`` and ``average_precision`` are means over the labels that occur;
        ``subset_accuracy`` is the share of rows with exactly their labels; ``f1:LABEL`` is the F1 of one label.
        """
        once = np.ones((1, len(self.labels)), dtype=np.int64)
        return {name: float(self.values(name, once)[0]) for name in names}

    def intervals(self, names: Iterable[str]) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals: of a bootstrap over rows, and Wilson's for the share of exact rows."""
        rows, found = len(self.labels), {}
        for name in names:
            draws = [self.values(name, times) for times in resampled(rows, samples=SAMPLES)]
            low, high = np.quantile(np.concatenate(draws), [0.025, 0.975])
            found[name] = (float(low), float(high))
        return {name: wilson(int(self.exact.sum()), rows) if name == EXACT else found[name] for name in found}

    def values(self, metric: str, times: Array) -> Array:
        """Return a metric where rows are counted ``times`` (samples, rows), (samples,)."""
        values: Array
        if metric == EXACT:
            values = times @ self.exact / times.sum(1)
        elif metric == "average_precision":
            values = _mean(np.stack([self._precision(label, times) for label in range(len(self.names))], axis=1))
        elif metric == "micro_f1":
            right, sizes, _ = self._sums(times)
            values = 2 * right.sum(1) / np.maximum(sizes.sum(1), 1)
        else:
            right, sizes, support = self._sums(times)
            by_label = 2 * right / np.maximum(sizes, 1)
            if metric.startswith(F1_OF):
                values = by_label[:, self.names.index(metric.removeprefix(F1_OF))]
            else:
                values = _mean(np.where(support > 0, by_label, np.nan))
        return values

    def by_class(self) -> list[ByClass]:
        """Return precision, recall and F1 of each label, in order."""
        right, sizes, support = (sums[0] for sums in self._sums(np.ones((1, len(self.labels)), dtype=np.int64)))
        answered = sizes - support
        return [
            ByClass(
                label=name, rows=int(support[n]), answered=int(answered[n]),
                precision=float(right[n] / max(answered[n], 1)), recall=float(right[n] / max(support[n], 1)),
                f1=float(2 * right[n] / max(sizes[n], 1)),
            )
            for n, name in enumerate(self.names)
        ]  # fmt: skip

    def _sums(self, times: Array) -> tuple[Array, Array, Array]:
        """Return how often each label is rightly given, given plus true, and true, (samples, labels)."""
        given = self.given & self.known
        counted = times.astype(np.float64)
        right, answered, support = (counted @ part for part in (given & self.true, given, self.true))
        return right, answered + support, support

    def _precision(self, label: int, times: Array) -> Array:
        """Return the sum over scores of precision times the recall gained, (samples,); NaN where no row has the label.

        Rows of the same score are one step.
        """
        order, ends = self._orders[label]
        counted = times[:, order] * self.known[order, label]
        true = np.cumsum(counted * self.true[order, label], axis=1)[:, ends]
        answered = np.cumsum(counted, axis=1)[:, ends]
        area = (np.diff(true, prepend=0, axis=1) * true / np.maximum(answered, 1)).sum(1)
        found: Array = np.divide(area, true[:, -1], out=np.full(len(times), np.nan), where=true[:, -1] > 0)
        return found

    @cached_property
    def _orders(self) -> list[tuple[Array, Array]]:
        """For each label: rows by falling score, and where rows of one score end."""
        found = []
        for column in self.scores.T:
            order = np.argsort(-column, kind="stable")
            found.append((order, np.flatnonzero(np.diff(column[order], append=np.nan) != 0)))
        return found


def _mean(by_label: Array) -> Array:
    """Return the mean over labels (samples, labels) that are not NaN; 0 where all are."""
    there = ~np.isnan(by_label)
    mean: Array = np.nan_to_num(by_label).sum(1) / np.maximum(there.sum(1), 1)
    return mean
