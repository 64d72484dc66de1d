"""Intervals and shares that several tasks quote."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from compress.tasks.base import Array


def wilson(successes: int, rows: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson, 1927)."""
    if rows == 0:
        return 0.0, 1.0
    share, square = successes / rows, z * z
    middle = (share + square / (2 * rows)) / (1 + square / rows)
    half = z / (1 + square / rows) * math.sqrt(share * (1 - share) / rows + square / (4 * rows * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def of_counts(true: Array, predicted: Array, right: Array) -> dict[str, Array]:
    """Return metrics of how often each class is true, predicted and both, counts (…, classes).

    Accuracy; macro F1 and balanced accuracy (mean recall), means over the classes that occur; Matthews' correlation,
    0 where one side is constant: each (…,), as scikit-learn has them.
    """
    rows, occurs = true.sum(-1), true > 0
    classes = np.maximum(occurs.sum(-1), 1)
    recall = right / np.maximum(true, 1)
    spread = np.sqrt(np.maximum(rows**2 - (predicted**2).sum(-1), 0)) * np.sqrt(
        np.maximum(rows**2 - (true**2).sum(-1), 0)
    )
    together = right.sum(-1) * rows - (true * predicted).sum(-1)
    mcc = np.divide(together, spread, out=np.zeros(np.shape(spread)), where=spread > 0)
    return {
        "accuracy": right.sum(-1) / np.maximum(rows, 1),
        "macro_f1": (f1_of(true, predicted, right) * occurs).sum(-1) / classes,
        "balanced_accuracy": (recall * occurs).sum(-1) / classes,
        "mcc": np.clip(mcc, -1.0, 1.0),
    }


def f1_of(true: Array, predicted: Array, right: Array) -> Array:
    """Return the F1 of counts, of the same shape; 0 where a class is neither true nor predicted."""
    f1: Array = 2 * right / np.maximum(true + predicted, 1)
    return f1


def bootstrap(
    metrics: Callable[[Array], dict[str, float]], rows: int, samples: int = 200, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of the metrics of rows, given by number, over resampled ones."""
    generator = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {}
    for _ in range(samples):
        for name, value in metrics(generator.integers(0, rows, rows)).items():
            draws.setdefault(name, []).append(value)
    return {name: (float(np.quantile(v, 0.025)), float(np.quantile(v, 0.975))) for name, v in draws.items()}
