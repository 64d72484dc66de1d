"""One class out of two or more for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from compress.tasks import paired
from compress.tasks.adoption import Adoption, adopt_classes
from compress.tasks.base import Array, Baseline, Features, Labelled, Task
from compress.tasks.doubts import refuse_doubtful_labels, refuse_too_many_classes
from compress.tasks.functions import UNLABELLED, soft_target_loss
from compress.tasks.judging import Head, judge_classes
from compress.tasks.paired import Difference
from compress.tasks.statistics import bootstrap, from_confusion, wilson


@dataclass(frozen=True)
class Classification(Task):
    """One label out of two or more, for a text or a pair of texts."""

    labels: tuple[str, ...]

    name = "classification"
    auto = AutoModelForSequenceClassification
    head = "classification head"
    pipeline = "text-classification"
    predicts = "classes"
    distributes = True
    main_metric = "accuracy"
    test = "McNemar's exact test"
    missing = UNLABELLED

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return True: any labels can be classes."""
        return True

    @classmethod
    def check(cls, splits: Sequence[Labelled], *, asked: bool) -> None:
        """Raise DataError for labels longer than a few characters; unasked, for those that may be scores."""
        refuse_doubtful_labels(splits, asked=asked)
        if not asked:
            refuse_too_many_classes(splits[0])

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task with these classes in order, numerically where all are whole numbers."""
        distinct = sorted(set(labels))
        if all(label.removeprefix("-").isdecimal() for label in distinct):
            distinct.sort(key=int)
        return cls(tuple(distinct))

    @classmethod
    def owns(cls, config: Any) -> bool:
        """Return whether there are several outputs, and they are not scores."""
        return bool(config.problem_type != "regression" and config.num_labels != 1)

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task with the classes of ``id2label``."""
        return cls(tuple(str(config.id2label[index]) for index in range(len(config.id2label))))

    @classmethod
    def refusal(cls, label: str) -> None:
        """Return None: any text can be a class."""

    def unknown(self, label: str) -> bool:
        """Return whether it is none of the classes."""
        return label not in self.labels

    def extended(self, labels: Iterable[str]) -> Self:
        """Return the task with these classes too, in order."""
        return self.of_labels([*self.labels, *labels])

    def classes(self, labels: Sequence[str]) -> Sequence[Hashable]:
        """Return the labels."""
        return labels

    @property
    def output_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.labels

    def head_config(self) -> dict[str, Any]:
        """Return num_labels and the two label dictionaries."""
        return {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "num_labels": len(self.labels),
            "problem_type": "single_label_classification",
        }

    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how a classifier's outputs are read as the data's classes; raises Refusal."""
        return adopt_classes(config, self.labels, mapping)

    def renumbered(self, adoption: Adoption, labels: Sequence[Array]) -> tuple[Task, list[Array]]:
        """Return the classes and the labels in the order of a model's head."""
        if adoption.names == self.labels:
            return self, list(labels)
        number = np.array([adoption.outputs[label] for label in self.labels], dtype=np.int64)
        return Classification(adoption.names), [number[known] for known in labels]

    def encode(self, label: str) -> int:
        """Return the label's index; raises ValueError for a label outside `labels`."""
        return self.labels.index(str(label))

    def encoded(self, codes: Sequence[int]) -> Array:
        """Return the indices (rows,)."""
        return np.asarray(codes, dtype=np.int64)

    def too_few(self, labels: Array) -> str:
        """Return why, where only one class is left."""
        return "leaves rows of one class only" if len(set(labels.tolist())) < 2 else ""

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have a label (batch,)."""
        return labels != self.missing

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in nats (batch,)."""
        return functional.cross_entropy(logits, labels, reduction="none")

    def head_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        return functional.cross_entropy(logits, labels)

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """Return `soft_target_loss`: KL(others || logits) in nats."""
        return soft_target_loss(logits, others, temperature)

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

    def shown(self, logits: Array) -> list[str]:
        """Return label and probability of each row: "good 0.98"."""
        return [f"{answer['label']} {answer['probability']:.2f}" for answer in self.describe(logits)]

    def shown_label(self, label: Any) -> str:
        """Return the class of an index."""
        return self.labels[int(label)]

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

    def main_metric_by_rows(self, logits: Array, labels: Array) -> Callable[[Array], float]:
        """Return the accuracy as a function of rows: quicker than all metrics."""
        right = self.predictions(logits) == labels
        return lambda rows: float(right[rows].mean())

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows with the same predicted label."""
        return float((self.predictions(logits) == self.predictions(others)).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare accuracies by McNemar's exact test."""
        right, other = (self.predictions(side) == labels for side in (logits, others))
        return paired.of_right_answers(self.main_metric, right, other)

    def judge(self, head: Head, logits: Array, labels: Array) -> Iterator[str]:
        """Yield how often it is right; raises ModelError where its outputs stand for other labels."""
        return judge_classes(head, self.labels, self.predictions(logits), labels)

    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return logistic regression on the features; a class without a row has the logit -30."""
        from sklearn.linear_model import LogisticRegression

        linear = LogisticRegression(C=4.0, max_iter=1000)
        linear.fit(features(texts), labels)

        def logits(given: Sequence[str]) -> Array:
            found = np.full((len(given), self.outputs), -30.0)
            found[:, linear.classes_] = linear.predict_log_proba(features(given))
            return found

        return Baseline(kind=f"{features.kind} + logistic regression", parameters=int(linear.coef_.size), logits=logits)
