"""The probability from which each label is given, where a row may have several: tuned on validation rows.

A label with `ENOUGH` validation rows that have it, and as many that do not, gets a threshold of its own, where its F1
is highest. All other labels share the one at which the micro F1 of all labels is highest. With fewer than `ENOUGH`
labels given in all validation rows together, every threshold stays one half. Candidates are `CANDIDATES`; of those
that are as good as each other the one nearest to one half is taken. So few rows cannot pull a threshold far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.errors import ModelError
from compress.tasks.base import Array

ENOUGH = 200  # rows with a label, and rows without it; with 50, tuning did harm (benchmarks/README.md)
HALF = 0.5
CANDIDATES = np.arange(2, 100, 2) / 100  # 0.02 to 0.98


def tuned(logits: Array, labels: Array) -> list[float]:
    """Return a threshold for each label. Logits and labels are (rows, labels), NaN where a label is not known."""
    known = ~np.isnan(labels)
    true = np.nan_to_num(labels) > 0
    given = _given(logits)  # (candidates, rows, labels)
    right = (given & true & known).sum(1)
    sizes = (given & known).sum(1) + true.sum(0)
    shared = HALF
    if true.sum() >= ENOUGH:
        shared = _best(right.sum(-1), sizes.sum(-1))
    own = (true.sum(0) >= ENOUGH) & ((known & ~true).sum(0) >= ENOUGH)
    return [_best(right[:, n], sizes[:, n]) if own[n] else shared for n in range(labels.shape[1])]


def _given(logits: Array) -> Array:
    """Return which labels each candidate gives, (candidates, rows, labels)."""
    at_least: Array = logits[None] >= cuts(CANDIDATES)[:, None, None]
    return at_least


def _best(right: Array, sizes: Array) -> float:
    """Return the candidate with the highest F1, 2 right / sizes, nearest to one half; counts are (candidates,)."""
    f1 = 2 * right / np.maximum(sizes, 1)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(CANDIDATES[best[np.abs(CANDIDATES[best] - HALF).argmin()]])


def cuts(thresholds: Sequence[float] | Array) -> Array:
    """Return the logits at which labels have these probabilities, fp64."""
    shares = np.asarray(thresholds, dtype=np.float64)
    found: Array = np.log(shares) - np.log1p(-shares)
    return found


def checked(thresholds: object, outputs: int) -> tuple[float, ...]:
    """Return the thresholds that a configuration keeps, none where it keeps none; raises ModelError for others."""
    if thresholds is None:
        return ()
    if isinstance(thresholds, (list, tuple)) and len(thresholds) == outputs:
        values = tuple(value for value in thresholds if isinstance(value, (int, float)) and 0 < value < 1)
        if len(values) == outputs:
            return tuple(map(float, values))
    raise ModelError(
        f"config.json: thresholds must be {outputs} numbers above 0 and below 1, one for each label in the order of "
        "id2label. Correct them, or remove them: every label is then given from 0.5 on."
    )
