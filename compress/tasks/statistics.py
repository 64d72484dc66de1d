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


def from_confusion(matrix: Array) -> dict[str, float]:
    """Return accuracy, macro F1 of the classes that occur and Matthews' correlation of counts (true, predicted).

    The same as scikit-learn's, which take too long to be called hundreds of times for an interval.
    """
    true, predicted, right, rows = matrix.sum(1), matrix.sum(0), np.diag(matrix), matrix.sum()
    f1 = 2 * right / np.maximum(true + predicted, 1)
    spread = math.sqrt(float(rows**2 - (predicted**2).sum())) * math.sqrt(float(rows**2 - (true**2).sum()))
    together = float(right.sum() * rows - (true * predicted).sum())
    return {
        "accuracy": float(right.sum() / max(rows, 1)),
        "f1": float(f1[true > 0].mean()) if rows else 0.0,
        "mcc": min(1.0, max(-1.0, together / spread)) if spread else 0.0,
    }


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
