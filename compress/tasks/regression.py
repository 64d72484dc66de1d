"""One real number for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from compress.tasks import paired
from compress.tasks.adoption import Adoption, adopt_score
from compress.tasks.base import Array, Baseline, Features, Labelled
from compress.tasks.doubts import is_score, refuse_doubtful_labels
from compress.tasks.judging import Head, judge_scores
from compress.tasks.paired import Difference
from compress.tasks.scored import Scored, correlations
from compress.tasks.statistics import bootstrap
from compress.tensors import alike
from compress.wording import shortened


@dataclass(frozen=True)
class Regression(Scored):
    """One real number for a text or a pair of texts."""

    name = "regression"
    auto = AutoModelForSequenceClassification
    head = "classification head"
    pipeline = "text-classification"
    predicts = "scores"
    distributes = False
    metric_names = ("pearson", "spearman", "r2")
    missing = math.nan
    same_within: ClassVar[float] = 0.02  # two scores agree when they differ by at most this share of the label range

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return whether there are more than 20 different labels, all of them numbers and one with a fraction."""
        distinct = sorted(set(labels))
        numeric = len(distinct) > 20 and all(map(is_score, distinct))
        return numeric and any(float(label) != int(float(label)) for label in distinct)

    @classmethod
    def check(cls, splits: Sequence[Labelled], *, asked: bool) -> None:
        """Raise DataError for labels that no float of 32 bits holds; unasked, for those that may be classes."""
        refuse_doubtful_labels(splits, asked=asked)

    @classmethod
    def refusal(cls, label: str) -> tuple[str, str] | None:
        """Return what is wrong with a label that is not a finite number."""
        if is_score(label):
            return None
        return f"the label {shortened(label)!r} is not a finite number.", "Correct it, or ask for task=classification."

    @classmethod
    def owns(cls, config: Any) -> bool:
        """Return whether the outputs are scores, or there is only one."""
        return bool(config.problem_type == "regression" or config.num_labels == 1)

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task with the range that the configuration keeps, 0 to 1 without."""
        return cls(*getattr(config, "label_range", (0.0, 1.0)))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The one output."""
        return ("score",)

    def head_config(self) -> dict[str, Any]:
        """Return one output, trained by mean squared error; the label range is kept with the model."""
        return {
            "id2label": {0: "score"},
            "label2id": {"score": 0},
            "num_labels": 1,
            "problem_type": "regression",
            "label_range": [self.low, self.high],
        }

    def encoded(self, codes: Sequence[float]) -> Array:
        """Return the scores (rows,)."""
        return np.asarray(codes, dtype=np.float32)

    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how a model's one output is read as the score; raises Refusal."""
        return adopt_score(config)

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have a label (batch,)."""
        return ~labels.isnan()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Squared error (batch,)."""
        return (logits[:, 0] - labels.to(logits.dtype)) ** 2

    def head_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error."""
        return functional.mse_loss(logits[:, 0], labels)

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """Squared error, mean over rows: a temperature that divides both sides cancels out."""
        return functional.mse_loss(*alike(logits, others))

    def predictions(self, logits: Array) -> Array:
        """Return the scores, (rows,)."""
        return logits[:, 0]

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return the score of each row."""
        return [{"score": float(score)} for score in self.predictions(logits)]

    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Return the scores."""
        return [f"{answer['score']:.4g}" for answer in self.describe(logits)]

    def shown_label(self, label: Any) -> str:
        """Return the score."""
        return f"{float(label):.4g}"

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return Pearson's and Spearman's correlation (0 where one side is constant), R² and the mean squared error.

        R² is the share of the labels' variance that the scores explain, below 0 where their mean is nearer.
        """
        scores = self.predictions(logits).astype(np.float64)
        error, variance = float(((scores - labels) ** 2).mean()), float(np.var(labels.astype(np.float64)))
        return correlations(scores, labels) | {"r2": 1 - error / variance if variance > 0 else 0.0, "mse": error}

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals."""
        return bootstrap(lambda rows: self.metrics(logits[rows], labels[rows]), len(labels))

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows whose scores differ by at most 2 % of the label range."""
        apart = np.abs(self.predictions(logits) - self.predictions(others))
        return float((apart <= self.same_within * (self.high - self.low)).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare the metric that decides by a paired bootstrap."""
        compare = {"pearson": paired.of_scores, "spearman": paired.of_ranks, "r2": paired.of_errors}[self.main_metric]
        return compare(self.main_metric, labels, self.predictions(logits), self.predictions(others))

    def judge(self, head: Head, logits: Array, labels: Array) -> Iterator[str]:
        """Yield how its scores go with the labels; raises ModelError where they are on another scale."""
        scores = self.predictions(logits).astype(np.float64)
        return judge_scores(head, self.metrics(logits, labels), scores, labels)

    def constant(self, labels: Array) -> Baseline:
        """Return the mean of the labels."""
        mean, kind = float(labels.mean()), "always answering the mean score"
        return Baseline(kind=kind, parameters=0, logits=lambda texts: np.full((len(texts), 1), mean))

    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return ridge regression on the features."""
        from sklearn.linear_model import Ridge

        linear = Ridge()
        linear.fit(features(texts), labels)

        def logits(given: Sequence[str]) -> Array:
            scores: Array = linear.predict(features(given))[:, None]
            return scores

        return Baseline(kind=f"{features.kind} + ridge regression", parameters=int(linear.coef_.size), logits=logits)
