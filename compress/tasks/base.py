"""What is predicted: one seam for the head, the loss on labels, the metrics and how a label is read.

Everything else (losses, pruning, quantization, export, reports) sees only logits and this interface.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compress.tasks import paired
from compress.tasks.paired import Difference

Array = NDArray[Any]


class TaskKind(Enum):
    """What a recipe may ask for; ``auto`` looks at the labels."""

    auto = "auto"
    classification = "classification"
    regression = "regression"


class Task(Protocol):
    """What is predicted from a text or a pair of texts."""

    @property
    def kind(self) -> TaskKind:
        """Which of the kinds a recipe can ask for."""
        ...

    @property
    def outputs(self) -> int:
        """Number of logits per row."""
        ...

    @property
    def main_metric(self) -> str:
        """The metric that is quoted first, higher is better."""
        ...

    def head_config(self) -> dict[str, Any]:
        """Entries of a transformers configuration that give the model its head."""
        ...

    def encode(self, label: object) -> int | float:
        """Return a label as the number used in training; raises ValueError for an unknown one."""
        ...

    def predictions(self, logits: Array) -> Array:
        """Logits (rows, outputs) to predictions (rows,)."""
        ...

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Logits (rows, outputs) to one readable prediction a row."""
        ...

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Compare logits (rows, outputs) with labels (rows,)."""
        ...

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """95 % intervals of `metrics`, by metric."""
        ...

    def agreement(self, logits: Array, others: Array) -> float:
        """Share of rows on which two models predict the same."""
        ...

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare the main metric of a model with that of another one on the same rows, by a paired test."""
        ...


@dataclass(frozen=True)
class Classification:
    """One label out of two or more, for a text or a pair of texts."""

    labels: tuple[str, ...]

    kind = TaskKind.classification
    main_metric = "accuracy"

    @property
    def outputs(self) -> int:
        """Number of classes."""
        return len(self.labels)

    def head_config(self) -> dict[str, Any]:
        """Return num_labels and the two label dictionaries."""
        return {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "num_labels": len(self.labels),
            "problem_type": "single_label_classification",
        }

    def encode(self, label: object) -> int:
        """Return the label's index; raises ValueError for a label outside `labels`."""
        return self.labels.index(str(label))

    def predictions(self, logits: Array) -> Array:
        """Return the index of the largest logit of each row."""
        best: Array = logits.argmax(-1)
        return best

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return label and probability of each row, with all probabilities beside them."""
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        shares = shifted / shifted.sum(-1, keepdims=True)
        return [
            {
                "label": self.labels[int(row.argmax())],
                "probability": float(row.max()),
                "probabilities": {label: float(share) for label, share in zip(self.labels, row, strict=True)},
            }
            for row in shares
        ]

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return accuracy, macro F1 over the classes that occur, and Matthews' correlation (scikit-learn)."""
        from sklearn.metrics import f1_score, matthews_corrcoef

        predicted = self.predictions(logits)
        return {
            "accuracy": float((predicted == labels).mean()),
            "f1": float(f1_score(labels, predicted, average="macro", labels=np.unique(labels), zero_division=0)),
            "mcc": float(matthews_corrcoef(labels, predicted)) if len({*labels, *predicted}) > 1 else 0.0,
        }

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return Wilson's interval for accuracy, a bootstrap interval for the others."""
        predicted, count = self.predictions(logits), self.outputs
        codes = labels.astype(np.int64) * count + predicted

        def metrics(rows: Array) -> dict[str, float]:
            return from_confusion(np.bincount(codes[rows], minlength=count * count).reshape(count, count))

        return _bootstrap(metrics, len(labels)) | {"accuracy": wilson(int((predicted == labels).sum()), len(labels))}

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows with the same predicted label."""
        return float((self.predictions(logits) == self.predictions(others)).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare accuracies by McNemar's exact test."""
        right, other = (self.predictions(side) == labels for side in (logits, others))
        return paired.of_right_answers(self.main_metric, right, other)


@dataclass(frozen=True)
class Regression:
    """One real number for a text or a pair of texts."""

    low: float  # smallest and largest label of the training split
    high: float

    kind = TaskKind.regression
    main_metric = "pearson"
    outputs = 1
    same_within = 0.02  # two scores agree when they differ by at most this share of the label range

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
        return _bootstrap(lambda rows: self.metrics(logits[rows], labels[rows]), len(labels))

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows whose scores differ by at most 2 % of the label range."""
        apart = np.abs(self.predictions(logits) - self.predictions(others))
        return float((apart <= self.same_within * (self.high - self.low)).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare Pearson's correlations by a paired bootstrap."""
        scores, other = self.predictions(logits), self.predictions(others)
        return paired.of_scores(self.main_metric, labels, scores, other)


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


def _bootstrap(
    metrics: Callable[[Array], dict[str, float]], rows: int, samples: int = 200, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of the metrics of rows, given by number, over resampled ones."""
    generator = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {}
    for _ in range(samples):
        for name, value in metrics(generator.integers(0, rows, rows)).items():
            draws.setdefault(name, []).append(value)
    return {name: (float(np.quantile(v, 0.025)), float(np.quantile(v, 0.975))) for name, v in draws.items()}


def task_of_labels(kind: TaskKind, labels: Sequence[str]) -> Task:
    """Return the task that ``labels``, those of the training split, stand for.

    ``auto`` is regression when every label is a number, one has a fraction, and there are more than 20
    different ones; otherwise classification, labels sorted (numerically where all are whole numbers).
    Raises ValueError when ``kind`` is regression and a label is no number.
    """
    distinct = sorted(set(labels))
    if kind is TaskKind.auto:
        numeric = len(distinct) > 20 and all(_is_number(label) for label in distinct)
        fractional = numeric and any(float(label) != int(float(label)) for label in distinct)
        kind = TaskKind.regression if fractional else TaskKind.classification
    if kind is TaskKind.regression:
        values = [Regression(0, 0).encode(label) for label in distinct]
        return Regression(min(values), max(values))
    if all(label.removeprefix("-").isdecimal() for label in distinct):
        distinct.sort(key=int)
    return Classification(tuple(distinct))


def task_of_config(config: Any) -> Task:
    """Return the task of a saved model's transformers configuration."""
    if config.problem_type == "regression" or config.num_labels == 1:
        return Regression(*getattr(config, "label_range", (0.0, 1.0)))
    return Classification(tuple(str(config.id2label[index]) for index in range(len(config.id2label))))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
