"""How well the documents of a small corpus are found for queries, by the cosines of their vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.tasks import paired
from compress.tasks.base import Array
from compress.tasks.paired import Difference
from compress.tasks.rank_scores import MRR, NDCG, rank
from compress.tasks.vector_pairs import pairs_of, unit

RECALL = ("recall@10", "recall@100")
RETRIEVAL = (NDCG, MRR, *RECALL)
_QUERIES = 100  # ranked at once


@dataclass(frozen=True)
class Retrieval:
    """Figures of each query with a relevant document, by metric, each (queries,)."""

    values: dict[str, Array]

    def metrics(self) -> dict[str, float]:
        """Return the means over queries; 0 without queries."""
        return {name: float(column.mean()) if len(column) else 0.0 for name, column in self.values.items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % bootstrap intervals over queries."""
        columns = np.stack(list(self.values.values()), axis=1)
        if not len(columns):
            return dict.fromkeys(self.values, (0.0, 1.0))
        draws = np.concatenate([times @ columns / len(columns) for times in paired.resampled(len(columns))])
        bounds = zip(*np.quantile(draws, [0.025, 0.975], axis=0), strict=True)
        return {name: (float(low), float(high)) for name, (low, high) in zip(self.values, bounds, strict=True)}

    def difference(self, other: Retrieval, metric: str) -> Difference:
        """Compare a metric with that of other vectors of the same texts, by a paired bootstrap over queries."""
        apart = self.values[metric] - other.values[metric]
        if not len(apart):
            return Difference(metric=metric, value=0.0, low=-1.0, high=1.0, p=1.0)
        columns = np.stack([apart, np.ones_like(apart)], axis=1)
        return paired.of_resampled_rows(metric, columns, lambda sums: sums[:, 0] / sums[:, 1])


def retrieval(vectors: Array, labels: Array) -> Retrieval:
    """Return how well queries, the first texts of rows, find their documents among all second texts.

    Labels are those of `compress.tasks.vectors.SentenceVectors`: a row's score is the relevance of its document, 0 or
    less where it is not relevant; documents without a row for a query are not. Equal texts count once. Recall is the
    share of a query's relevant documents among the first ten or hundred.
    """
    pairs = pairs_of(labels)
    (queries, asked), (documents, there) = (_distinct(labels, places) for places in (pairs.first, pairs.second))
    gains = np.zeros((len(queries), len(documents)))
    np.maximum.at(gains, (asked, there), pairs.scores)
    chosen = np.flatnonzero((gains > 0).any(1))
    sides = unit(vectors.astype(np.float64))
    corpus, values = sides[documents], {name: [np.zeros(0)] for name in RETRIEVAL}
    for start in range(0, len(chosen), _QUERIES):
        some = chosen[start : start + _QUERIES]
        scores, relevance = sides[queries[some]] @ corpus.T, gains[some]
        groups = np.repeat(np.arange(len(some)), len(corpus))
        found = rank(scores.ravel(), relevance.ravel(), groups).values
        order = np.argsort(-scores, axis=1, kind="stable")
        for name in RECALL:
            first = np.take_along_axis(relevance, order[:, : int(name.partition("@")[2])], axis=1)
            found[name] = (first > 0).sum(1) / (relevance > 0).sum(1)
        for name in RETRIEVAL:
            values[name].append(found[name])
    return Retrieval({name: np.concatenate(parts) for name, parts in values.items()})


def _distinct(labels: Array, places: Array) -> tuple[Array, Array]:
    """Return where the first of equal texts is, and the number of each place's text among them."""
    _, first, inverse = np.unique(labels[places, 3], return_index=True, return_inverse=True)
    return places[first], inverse
