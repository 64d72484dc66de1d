"""Which range of a tensor's values its 8-bit integers should stand for, from a histogram of them.

A range is a threshold T on sizes: values beyond [−T, T] saturate, and the range ends earlier where the values do. An
asymmetric range is the part of [−T, T] that has values and 0; a symmetric one is [−T, T].
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np

from compress.quantize.histogram import Histogram
from compress.tasks.base import Array

LEVELS = 256  # of an unsigned integer of 8 bits, over an asymmetric range
SYMMETRIC_LEVELS = 128  # of a signed one's absolute value
CANDIDATES = 256  # thresholds that are tried

Range = tuple[float, float]


class Calibration(Enum):
    """How ranges of activations are chosen; what a softmax gives has minmax in place of entropy.

    minmax: from the smallest to the largest value; moving_average: of these, batch by batch (Krishnamoorthi,
    arXiv:1806.08342); percentile: a share of all values, the rest saturates; entropy: least KL divergence
    (Migacz, 8-bit inference with TensorRT, GTC 2017); mse: least squared error.
    """

    minmax = "minmax"
    moving_average = "moving_average"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


def percentile_range(values: Histogram, percentile: float, *, symmetric: bool) -> Range:
    """Return the range that holds ``percentile`` % of the values, as many left out below as above.

    A symmetric one holds that share of their absolute values. Within a bin values are taken to be spread evenly, so
    an end is at most a bin's width from the quantile of the values themselves.
    """
    if symmetric:
        counts, _ = values.folded()
        most = max(-values.low, values.high)
        end = min(_quantile(counts, 0, values.width, percentile / 100), most)
        return -end, end
    counts, first = values.filled()
    beyond = (1 - percentile / 100) / 2
    low, high = (_quantile(counts, first, values.width, share) for share in (beyond, 1 - beyond))
    return min(max(low, values.low), values.high), max(min(high, values.high), values.low)


def _quantile(counts: Array, first: int, width: float, share: float) -> float:
    """Return the value below which ``share`` of the counts lies."""
    below = np.concatenate([[0], np.cumsum(counts)])
    wanted = share * below[-1]
    place = min(int(np.searchsorted(below, wanted, side="right")) - 1, len(counts) - 1)
    inside = (wanted - below[place]) / max(counts[place], 1)
    return float((first + place + inside) * width)


def entropy_range(values: Histogram, *, symmetric: bool) -> Range:
    """Return the range of the threshold whose quantized distribution has the least KL divergence from the values'."""
    return _best(
        values, lambda counts, start, stop, _: kl_divergence(counts, start, stop, _levels(symmetric)), symmetric
    )


def squared_error_range(values: Histogram, *, symmetric: bool) -> Range:
    """Return the range of the threshold whose integers lie nearest to the values, by the mean squared error."""

    def error(counts: Array, start: int, stop: int, first: int) -> float:
        ends = (first + start) * values.width, (first + stop) * values.width
        return _squared_error(counts, first, values.width, ends, symmetric)

    return _best(values, error, symmetric)


def squared_error(values: Histogram, ends: Range, *, symmetric: bool) -> float:
    """Return the sum of squared differences of the values and their integers over a range that holds 0."""
    counts, first = values.folded() if symmetric else values.filled()
    return _squared_error(counts, first, values.width, ends, symmetric)


def _squared_error(counts: Array, first: int, width: float, ends: Range, symmetric: bool) -> float:
    (low, high), middles = ends, (np.arange(first, first + len(counts)) + 0.5) * width
    if symmetric:
        step = high / (SYMMETRIC_LEVELS - 1)
        rounded = np.minimum(np.round(middles / step), SYMMETRIC_LEVELS - 1) * step
    else:
        step = (high - low) / (LEVELS - 1)
        zero = np.round(-low / step)
        rounded = (np.clip(np.round(middles / step) + zero, 0, LEVELS - 1) - zero) * step
    return float((counts * (middles - rounded) ** 2).sum())


def kl_divergence(counts: Array, start: int, stop: int, levels: int) -> float:
    """Return KL(P || Q) in nats of clipping counts to the bins [``start``, ``stop``) and quantizing to ``levels``.

    P holds all counts, those outside in the first and last bin inside; Q is what is inside, joined into ``levels``
    groups of bins, each spread evenly over its bins that are not empty. Infinite where P has what Q has not.
    """
    inside = counts[start:stop].astype(np.float64)
    reference = inside.copy()
    reference[0] += counts[:start].sum()
    reference[-1] += counts[stop:].sum()
    group = np.arange(len(inside)) * levels // len(inside)
    held = inside > 0
    share = np.bincount(group, inside, levels) / np.maximum(np.bincount(group, held, levels), 1)
    quantized = share[group] * held
    there = reference > 0
    if not quantized.any() or (quantized[there] == 0).any():
        return float("inf")
    p, q = reference[there] / reference.sum(), quantized[there] / quantized.sum()
    return float((p * np.log(p / q)).sum())


def _levels(symmetric: bool) -> int:
    return SYMMETRIC_LEVELS if symmetric else LEVELS


def _best(values: Histogram, cost: Callable[[Array, int, int, int], float], symmetric: bool) -> Range:
    """Return the range of the threshold with the least ``cost(counts, start, stop, first bin's number)``.

    Thresholds lie at bins' ends, up to the largest value's; the smallest leaves a bin for each level.
    """
    counts, first = values.folded() if symmetric else values.filled()
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    last = max(-first, first + len(counts))
    costs: dict[int, float] = {}
    for threshold in range(last, 0, -max(1, last // CANDIDATES)):
        start, stop = max(-threshold - first, 0), min(threshold - first, len(counts))
        if stop - start < _levels(symmetric) and costs:
            break
        costs[threshold] = cost(counts, start, stop, first)
    best = min(costs, key=lambda threshold: costs[threshold])
    end = best * values.width
    if symmetric:
        end = min(end, max(-low, high))
        return -end, end
    return max(low, -end), min(high, end)
