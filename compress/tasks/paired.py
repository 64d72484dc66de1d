"""Do two models differ? Paired tests: both sides answer the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEVEL = 0.05  # a difference is clear below this p
Z = 1.959964  # of a 95 % interval
ONE_SIDED = 1.644854  # of a 95 % bound to one side
SAMPLES = 2000  # of the bootstrap
CELLS = 4_000_000  # most counts that the bootstrap holds at once


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A model's metric less another's on the same rows, with its 95 % interval and the two-sided p of no difference.

    ``floor`` is the one-sided 95 % bound: the true difference lies below it with a probability of 5 % at most.
    """

    metric: str
    value: float
    low: float
    high: float
    p: float
    floor: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the rows show a difference, at the level of 5 %."""
        return self.p < LEVEL

    @property
    def least(self) -> float:
        """The one-sided bound; where it is not known, the lower end of the interval, which is more cautious."""
        return self.low if self.floor is None else self.floor


def of_right_answers(metric: str, right: Array, other: Array) -> Difference:
    """Compare two shares of right answers; ``right`` and ``other`` say for each row (rows,) whether it was.

    The test is McNemar's, exact: a binomial test of the rows that only one side answers right. The interval is
    Tango's score interval (Statistics in Medicine 17, 1998), widened to hold 0 where the test, which is the more
    cautious of the two, does not see a difference.
    """
    from scipy.stats import binomtest

    won, lost, rows = int((right & ~other).sum()), int((other & ~right).sum()), len(right)
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    low, high = tango(won, lost, rows)
    if p >= LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    floor, _ = tango(won, lost, rows, ONE_SIDED)
    return Difference(metric=metric, value=(won - lost) / max(rows, 1), low=low, high=high, p=p, floor=floor)


def tango(won: int, lost: int, rows: int, z: float = Z) -> tuple[float, float]:
    """Return the score interval of a paired difference of shares, 95 % by default; the whole range without rows."""
    from scipy.optimize import brentq

    if rows == 0:
        return -1.0, 1.0

    def score(difference: float) -> float:
        """Return how many standard errors the observed difference lies above ``difference``."""
        middle = (2 * rows - won + lost) * difference - won - lost
        root = math.sqrt(max(0.0, middle**2 + 8 * rows * lost * difference * (1 - difference)))
        spread = rows * ((root - middle) / (2 * rows) + difference * (1 - difference))
        above = won - lost - rows * difference
        return above / math.sqrt(spread) if spread > 0 else math.copysign(math.inf, above) if above else 0.0

    value, edge = (won - lost) / rows, 1 - 1e-12
    low = float(brentq(lambda d: min(score(d), 1e6) - z, -edge, value)) if score(-edge) > z else -1.0
    high = float(brentq(lambda d: max(score(d), -1e6) + z, value, edge)) if score(edge) < -z else 1.0
    return low, high


def of_resampled_rows(
    metric: str, columns: Array, statistic: Callable[[Array], Array], samples: int = SAMPLES, seed: int = 0
) -> Difference:
    """Compare any metrics that are functions of sums over rows, by a paired bootstrap.

    ``columns`` (rows, sums) are what is summed; ``statistic`` turns sums (samples, sums) into differences (samples,).
    Rows are drawn with replacement, the same for both sides, seeded; the interval is that of the percentiles.
    """
    generator, rows = np.random.default_rng(seed), len(columns)
    draws: list[Array] = []
    at_once = max(1, CELLS // max(rows, 1))
    for start in range(0, samples, at_once):
        count = min(at_once, samples - start)
        drawn = generator.integers(0, rows, (count, rows)) + rows * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        draws.append(statistic(times @ columns))
    found = np.concatenate(draws)
    fewest = min(int((found <= 0).sum()), int((found >= 0).sum()))
    low, floor, high = np.quantile(found, [0.025, 0.05, 0.975])
    return Difference(
        metric=metric,
        value=float(statistic(columns.sum(0, keepdims=True))[0]),
        low=float(low),
        high=float(high),
        floor=float(floor),
        p=min(1.0, 2 * (fewest + 1) / (samples + 1)),
    )


def of_scores(metric: str, labels: Array, scores: Array, other: Array) -> Difference:
    """Compare Pearson's correlation with the labels of two columns of scores, each (rows,), by a paired bootstrap."""
    values = [column.astype(np.float64) for column in (labels, scores, other)]
    true, *sides = [column - column.mean() for column in values]
    moments = [np.ones(len(true)), true, true**2, *(part for side in sides for part in (side, side**2, side * true))]

    def difference(sums: Array) -> Array:
        rows, first, square = (sums[:, number] for number in range(3))
        ours, theirs = (_correlation(rows, first, square, sums[:, start : start + 3]) for start in (3, 6))
        return ours - theirs

    return of_resampled_rows(metric, np.stack(moments, axis=1), difference)


def _correlation(rows: Array, first: Array, square: Array, side: Array) -> Array:
    """Return correlations of sums; 0 where one side is constant."""
    own, own_square, product = side.T
    spread = np.sqrt(np.maximum(rows * square - first**2, 0) * np.maximum(rows * own_square - own**2, 0))
    together = rows * product - first * own
    found: Array = np.divide(together, spread, out=np.zeros_like(spread), where=spread > 1e-9 * rows**2)
    return found
