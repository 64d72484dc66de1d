"""One real number for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from transformers import AutoModelForSequenceClassification

from compress.tasks import paired
from compress.tasks.base import Array, Task, TaskKind
from compress.tasks.paired import Difference
from compress.tasks.statistics import bootstrap


@dataclass(frozen=True)
class Regression(Task):
    """One real number for a text or a pair of texts."""

    low: float  # smallest and largest label of the training split
    high: float

    name = "regression"
    kind = TaskKind.regression
    auto = AutoModelForSequenceClassification
    main_metric = "pearson"
    same_within: ClassVar[float] = 0.02  # two scores agree when they differ by at most this share of the label range

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return whether there are more than 20 different labels, all of them numbers and one with a fraction."""
        distinct = sorted(set(labels))
        numeric = len(distinct) > 20 and all(map(is_number, distinct))
        return numeric and any(float(label) != int(float(label)) for label in distinct)

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task with the range of these scores; raises ValueError where one is no finite number."""
        values = [cls(0, 0).encode(label) for label in set(labels)]
        return cls(min(values), max(values))

    @classmethod
    def of_config(cls, config: Any) -> Self | None:
        """Return the task with the range that the configuration keeps, 0 to 1 without; None for classes."""
        if config.problem_type == "regression" or config.num_labels == 1:
            return cls(*getattr(config, "label_range", (0.0, 1.0)))
        return None

    @property
    def outputs(self) -> int:
        """Return 1."""
        return 1

    def head_config(self) -> dict[str, Any]:
        """Return one output, trained by mean squared error; the label range is kept with the model."""
        return {
            "id2label": {0: "score"},
            "label2id": {"score": 0},
            "num_labels": 1,
            "problem_type": "regression",
            "label_range": [self.low, self.high],
        }

    def encode(self, label: object) -> float:
        """Return the label as a finite number; raises ValueError where it is none."""
        value = float(str(label))
        if not math.isfinite(value):
            raise ValueError(label)
        return value

    def predictions(self, logits: Array) -> Array:
        """Return the scores, (rows,)."""
        return logits[:, 0]

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return the score of each row."""
        return [{"score": float(score)} for score in self.predictions(logits)]

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return Pearson's and Spearman's correlation (0 where one side is constant) and the mean squared error."""
        from scipy.stats import pearsonr, spearmanr

        scores = self.predictions(logits).astype(np.float64)
        varied = len(labels) > 1 and np.ptp(scores) > 0 and np.ptp(labels) > 0
        return {
            "pearson": float(pearsonr(scores, labels).statistic) if varied else 0.0,
            "spearman": float(spearmanr(scores, labels).statistic) if varied else 0.0,
            "mse": float(((scores - labels) ** 2).mean()),
        }

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals."""
        return bootstrap(lambda rows: self.metrics(logits[rows], labels[rows]), len(labels))

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows whose scores differ by at most 2 % of the label range."""
        apart = np.abs(self.predictions(logits) - self.predictions(others))
        return float((apart <= self.same_within * (self.high - self.low)).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare Pearson's correlations by a paired bootstrap."""
        scores, other = self.predictions(logits), self.predictions(others)
        return paired.of_scores(self.main_metric, labels, scores, other)


def is_number(text: str) -> bool:
    """Return whether a label is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
