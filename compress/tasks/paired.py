"""Do two models, or two ways to train one, differ? Paired tests: both sides answer the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEVEL = 0.05  # a difference is clear below this p
Z = 1.959964  # of a 95 % interval
ONE_SIDED = 1.644854  # of a 95 % bound to one side
SAMPLES = 2000  # of the bootstrap
SPREADS = 400  # of the bootstrap that only estimates standard errors
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


def resampled(rows: int, counts: Array | None = None, samples: int = SAMPLES, seed: int = 0) -> Iterator[Array]:
    """Yield how often each row is drawn in samples with replacement, as many as there are rows: (some, rows), seeded.

    ``counts`` (rows,) says for how many equal rows each stands, where there are few different ones.
    """
    generator = np.random.default_rng(seed)
    at_once = max(1, CELLS // max(rows, 1))
    for start in range(0, samples, at_once):
        some = min(at_once, samples - start)
        if counts is not None:
            yield generator.multinomial(int(counts.sum()), counts / counts.sum(), some)
            continue
        drawn = generator.integers(0, rows, (some, rows)) + rows * np.arange(some)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * rows).reshape(some, rows)


def of_draws(metric: str, value: float, draws: Iterable[Array]) -> Difference:
    """Return a difference with the percentiles of its values in resampled rows, and how rarely they change sides."""
    found = np.concatenate(list(draws))
    fewest = min(int((found <= 0).sum()), int((found >= 0).sum()))
    low, floor, high = (float(end) for end in np.quantile(found, [0.025, 0.05, 0.975]))
    p = min(1.0, 2 * (fewest + 1) / (len(found) + 1))
    return Difference(metric=metric, value=value, low=low, high=high, p=p, floor=floor)


def of_resampled_rows(
    metric: str, columns: Array, statistic: Callable[[Array], Array], counts: Array | None = None,
    samples: int = SAMPLES, seed: int = 0,
) -> Difference:  # fmt: skip
    """Compare any metrics that are functions of sums over rows, by a paired bootstrap.

    ``columns`` (rows, sums) are what is summed; ``statistic`` turns sums (samples, sums) into differences (samples,).
    Rows are drawn with replacement, the same for both sides, seeded; the interval is that of the percentiles.
    ``counts`` (rows,) says for how many equal rows each stands.
    """
    whole = columns.sum(0, keepdims=True) if counts is None else counts[None] @ columns
    draws = (statistic(times @ columns) for times in resampled(len(columns), counts, samples, seed))
    return of_draws(metric, float(statistic(whole)[0]), draws)


def of_ranks(metric: str, labels: Array, scores: Array, other: Array) -> Difference:
    """Compare Spearman's correlation with the labels of two columns of scores, each (rows,), by a paired bootstrap.

    Ranks are those within each sample, equal values at their mean.
    """
    places = [np.unique(column, return_inverse=True)[1] for column in (labels, scores, other)]

    def difference(times: Array) -> Array:
        true, *sides = (_mean_ranks(times, place) for place in places)
        ours, theirs = (_weighted_correlation(times, side, true) for side in sides)
        return ours - theirs

    whole = difference(np.ones((1, len(labels)), dtype=np.int64))
    return of_draws(metric, float(whole[0]), map(difference, resampled(len(labels))))


def _mean_ranks(times: Array, place: Array) -> Array:
    """Return the rank of every row, (samples, rows), among rows drawn ``times`` (samples, rows).

    ``place`` (rows,) numbers the rows' values in order; equal values share the mean of their ranks.
    """
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(place.max() + 1))
    drawn = np.add.reduceat(times[:, order], starts, axis=1)  # of each value
    ranks: Array = np.cumsum(drawn, axis=1) - (drawn - 1) / 2
    return ranks[:, place]


def _weighted_correlation(times: Array, side: Array, true: Array) -> Array:
    """Return Pearson's correlation of two columns (samples, rows), rows weighted by ``times``; 0 for constants."""
    rows = times.sum(1, keepdims=True)
    ours, theirs = (column - (times * column).sum(1, keepdims=True) / rows for column in (side, true))
    spread = np.sqrt((times * ours**2).sum(1) * (times * theirs**2).sum(1))
    together = (times * ours * theirs).sum(1)
    found: Array = np.divide(together, spread, out=np.zeros_like(spread), where=spread > 0)
    return found


def of_errors(metric: str, labels: Array, scores: Array, other: Array) -> Difference:
    """Compare the share of the labels' variance that two columns of scores explain (R²), by a paired bootstrap."""
    true, *sides = (column.astype(np.float64) for column in (labels, scores, other))
    centred = true - true.mean()
    columns = np.stack([(sides[1] - true) ** 2 - (sides[0] - true) ** 2, centred, centred**2, np.ones(len(true))], 1)

    def difference(sums: Array) -> Array:
        gained, first, square, rows = sums.T
        spread = square - first**2 / rows
        found: Array = np.divide(gained, spread, out=np.zeros_like(gained), where=spread > 0)
        return found

    return of_resampled_rows(metric, columns, difference)


def of_seeds(metric: str, by_seed: Callable[[Array], Array], rows: int, samples: int = SPREADS) -> Difference:
    """Compare two ways to train, each run with the same two or more seeds and measured on the same ``rows``.

    ``by_seed`` returns the metric's difference in each seed (seeds,) for rows given by number, which may recur. The
    difference is one of seeds and of rows that were not drawn, so both levels count: the rows by a bootstrap, drawn
    with replacement, the same for all seeds and both sides; the seeds, too few to be drawn from, by how their
    differences spread; and what single rows of single seeds add, which both hold, once. The test is Student's t with
    Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946): seeds - 1 where the seeds alone vary. Raises
    ValueError for a single seed.
    """
    from scipy.stats import t

    values, generator = by_seed(np.arange(rows)), np.random.default_rng(0)
    if len(values) < 2:
        raise ValueError("over seeds there is nothing to compare with one seed")
    draws = np.stack([by_seed(generator.integers(0, rows, rows)) for _ in range(samples)])
    by_seeds, by_rows = float(values.var(ddof=1)) / len(values), float(draws.mean(1).var(ddof=1))
    by_both = max(0.0, float(draws.var(0, ddof=1).mean()) - by_rows) / (len(values) - 1)
    square, value = max(by_seeds + by_rows - by_both, by_rows), float(values.mean())
    if square <= 0:  # the same in every seed and on every row
        return Difference(metric=metric, value=value, low=value, high=value, p=float(value == 0))
    freedom = square**2 / (by_seeds**2 / (len(values) - 1) + by_rows**2 / max(rows - 1, 1))
    error = math.sqrt(square)
    half = float(t.ppf(1 - LEVEL / 2, freedom)) * error
    p = float(2 * t.sf(abs(value) / error, freedom))
    return Difference(metric=metric, value=value, low=value - half, high=value + half, p=p)


def of_seeds_in_sums(
    metric: str, ways: Sequence[Sequence[Array]], statistic: Callable[[Array], Array]
) -> Difference:  # fmt: skip
    """Compare two ways to train by a metric that is a function of sums over rows: `of_seeds`.

    ``ways`` hold, for each of the two and seed by seed, what is summed (rows, sums); ``statistic`` turns sums
    (samples, sums) into values (samples,).
    """
    rows = len(ways[0][0])

    def by_seed(drawn: Array) -> Array:
        times = np.bincount(drawn, minlength=rows)[None]
        ours, theirs = (np.array([statistic(times @ columns)[0] for columns in way]) for way in ways)
        apart: Array = ours - theirs
        return apart

    return of_seeds(metric, by_seed, rows)


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
