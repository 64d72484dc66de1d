"""How well rows are ranked within their groups, such as the candidates of a query: nDCG and reciprocal rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.tasks import paired
from compress.tasks.base import Array
from compress.tasks.paired import Difference

NDCG, MRR = "ndcg@10", "mrr"
CUT = 10  # ranks that nDCG looks at


@dataclass(frozen=True)
class RankScores:
    """The rankings of some groups, in the order of their numbers; groups without a relevant row are left out.

    Each array is (groups,). Where rows of a group have equal scores, a figure is the mean over all orders of them, so
    that the order in a file counts for nothing.
    """

    ndcg: Array
    """DCG of the first ten ranks over that of the best order (Järvelin and Kekäläinen, ACM TOIS 20, 2002).

    A row gains its relevance, as trec_eval has it, over log2(rank + 1).
    """
    reciprocal_rank: Array
    """1 over the rank of the first row whose relevance is above 0."""

    @property
    def values(self) -> dict[str, Array]:
        """The figures of each group by metric, each (groups,)."""
        return {NDCG: self.ndcg, MRR: self.reciprocal_rank}

    def metrics(self) -> dict[str, float]:
        """Return the means over groups; 0 without groups."""
        return {name: float(column.mean()) if len(column) else 0.0 for name, column in self.values.items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % bootstrap intervals over groups."""
        if not len(self.ndcg):
            return dict.fromkeys(self.values, (0.0, 1.0))
        columns = np.stack(list(self.values.values()), axis=1)
        groups = len(columns)
        draws = np.concatenate([times @ columns / groups for times in paired.resampled(groups)])
        bounds = zip(*np.quantile(draws, [0.025, 0.975], axis=0), strict=True)
        return {name: (float(low), float(high)) for name, (low, high) in zip(self.values, bounds, strict=True)}

    def difference(self, other: RankScores, metric: str) -> Difference:
        """Compare a metric with that of another ranking of the same groups, by a paired bootstrap over groups."""
        apart = self.values[metric] - other.values[metric]
        if not len(apart):
            return Difference(metric=metric, value=0.0, low=-1.0, high=1.0, p=1.0)
        columns = np.stack([apart, np.ones_like(apart)], axis=1)
        return paired.of_resampled_rows(metric, columns, lambda sums: sums[:, 0] / sums[:, 1])


def rank(scores: Array, relevance: Array, groups: Array) -> RankScores:
    """Return how well scores order the rows of each group by relevance, all (rows,); higher scores come first.

    ``groups`` are the numbers of the rows' groups; relevance is 0 for a row that is not relevant, never negative.
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=np.nan))
    found: list[tuple[float, float]] = []
    for rows in np.split(order, starts[1:]):
        gains = relevance[rows].astype(np.float64)
        if len(rows) and gains.max() > 0:
            found.append(_of_group(scores[rows], gains))
    ndcg, reciprocal = np.array(found, dtype=np.float64).reshape(-1, 2).T
    return RankScores(ndcg, reciprocal)


def _of_group(scores: Array, gains: Array) -> tuple[float, float]:
    """Return nDCG and the reciprocal rank of a group with a relevant row; ``gains`` (rows,) are 0 or more."""
    places = np.unique(-scores, return_inverse=True, return_counts=True)
    block, sizes = places[1], places[2]
    sums = np.bincount(block, weights=gains)
    expected = np.repeat(sums / sizes, sizes)[:CUT]  # gain at each rank, the mean over equal scores
    discounts = 1 / np.log2(np.arange(2, len(gains[:CUT]) + 2))
    best = np.sort(gains)[::-1][:CUT] @ discounts
    relevant = np.bincount(block, weights=gains > 0)
    first = int((relevant > 0).argmax())
    above = int(sizes[:first].sum())
    return float(expected @ discounts / best), _expected_reciprocal(above, int(sizes[first]), int(relevant[first]))


def _expected_reciprocal(above: int, rows: int, relevant: int) -> float:
    """Return the mean of 1 / rank of the first relevant of ``rows`` rows in random order behind ``above`` others."""
    total, left = 0.0, 1.0  # probability that none of the rows so far was relevant
    for place in range(rows - relevant + 1):
        hit = relevant / (rows - place)
        total += left * hit / (above + place + 1)
        left *= 1 - hit
    return total
