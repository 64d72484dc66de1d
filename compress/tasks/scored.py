"""What tasks share whose rows have a score: its range, how it is read, and how answers go with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from compress.tasks.base import Array, Task


@dataclass(frozen=True)
class Scored(Task):
    """A task whose labels are finite numbers, one for each row."""

    low: float  # smallest and largest score of the training rows
    high: float

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task with the range of these scores; raises ValueError where one is not a finite number."""
        values = [cls(0, 0).encode(label) for label in set(labels)]
        return cls(min(values), max(values))

    def encode(self, label: str) -> float:
        """Return the score as a finite number; raises ValueError where it is none."""
        value = float(str(label))
        if not math.isfinite(value):
            raise ValueError(label)
        return value


def correlations(scores: Array, labels: Array) -> dict[str, float]:
    """Return Pearson's and Spearman's correlation of two columns, each (rows,); 0 where one of them is constant."""
    from scipy.stats import pearsonr, spearmanr

    varied = len(labels) > 1 and np.ptp(scores) > 0 and np.ptp(labels) > 0
    return {
        "pearson": float(pearsonr(scores, labels).statistic) if varied else 0.0,
        "spearman": float(spearmanr(scores, labels).statistic) if varied else 0.0,
    }
