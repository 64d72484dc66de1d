"""One class out of two or more for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from transformers import AutoModelForSequenceClassification

from compress.tasks import paired
from compress.tasks.base import Array, Task, TaskKind
from compress.tasks.paired import Difference
from compress.tasks.statistics import bootstrap, from_confusion, wilson


@dataclass(frozen=True)
class Classification(Task):
    """One label out of two or more, for a text or a pair of texts."""

    labels: tuple[str, ...]

    name = "classification"
    kind = TaskKind.classification
    auto = AutoModelForSequenceClassification
    main_metric = "accuracy"

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return True: any labels can be classes."""
        return True

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task with these classes in order, numerically where all are whole numbers."""
        distinct = sorted(set(labels))
        if all(label.removeprefix("-").isdecimal() for label in distinct):
            distinct.sort(key=int)
        return cls(tuple(distinct))

    @classmethod
    def of_config(cls, config: Any) -> Self | None:
        """Return the task with the classes of ``id2label``; None for a single output, and for scores."""
        if config.problem_type == "regression" or config.num_labels == 1:
            return None
        return cls(tuple(str(config.id2label[index]) for index in range(len(config.id2label))))

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

        return bootstrap(metrics, len(labels)) | {"accuracy": wilson(int((predicted == labels).sum()), len(labels))}

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows with the same predicted label."""
        return float((self.predictions(logits) == self.predictions(others)).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare accuracies by McNemar's exact test."""
        right, other = (self.predictions(side) == labels for side in (logits, others))
        return paired.of_right_answers(self.main_metric, right, other)
