"""One class out of two or more for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from compress.tasks import paired
from compress.tasks.adoption import Adoption, adopt_classes
from compress.tasks.base import LEAST, SUMS, Array, Baseline, ByClass, Features, Labelled, Task
from compress.tasks.doubts import refuse_doubtful_labels, refuse_too_many_classes
from compress.tasks.functions import UNLABELLED, soft_target_loss
from compress.tasks.judging import Head, judge_classes
from compress.tasks.label_errors import label_errors
from compress.tasks.paired import Difference
from compress.tasks.statistics import f1_of, of_counts, wilson
from compress.wording import shortened

F1_OF = "f1:"  # before the class whose F1 it is
MISLEADS = 0.8  # share of the largest class from which accuracy says little of the others
UNSEEN = 0.1  # share of its even share below which accuracy hardly sees a class


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
    def of_names(cls, names: Sequence[str]) -> Self:
        """Return the task with these classes; raises ValueError for fewer than two."""
        if len(set(names)) < 2:
            raise ValueError("there must be two classes or more")
        return cls(tuple(dict.fromkeys(names)))

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

    def names(self, label: str) -> Sequence[str]:
        """Return the label, which is one name."""
        return (label,)

    def unknown(self, label: str) -> bool:
        """Return whether it is none of the classes."""
        return label not in self.labels

    def extended(self, names: Iterable[str]) -> Self:
        """Return the task with these classes too, in order."""
        return self.of_labels([*self.labels, *names])

    def classes(self, labels: Sequence[str]) -> Sequence[Hashable]:
        """Return the labels."""
        return labels

    def classes_of(self, labels: Array) -> Array:
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
        weight_of = dict(zip((adoption.outputs[label] for label in self.labels), self.weights, strict=False))
        weights = tuple(weight_of.get(output, 1.0) for output in range(len(adoption.names))) if self.weights else ()
        own = [np.where(known == self.missing, self.missing, number[np.maximum(known, 0)]) for known in labels]
        return replace(self, labels=adoption.names, weights=weights), own

    def encode(self, label: str) -> int:
        """Return the label's index; raises ValueError for a label outside `labels`."""
        return self.labels.index(str(label))

    def encoded(self, codes: Sequence[int]) -> Array:
        """Return the indices (rows,)."""
        return np.asarray(codes, dtype=np.int64)

    def too_few(self, labels: Array) -> str:
        """Return why, where only one class is left."""
        return "leaves rows of one class only" if len(set(labels.tolist())) < 2 else ""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Accuracy, macro F1, Matthews' correlation, balanced accuracy, and the F1 of each class."""
        return ("accuracy", "macro_f1", "mcc", "balanced_accuracy", *(f"{F1_OF}{label}" for label in self.labels))

    @property
    def test(self) -> str:
        """McNemar's test for accuracy, the bootstrap for the others."""
        return "McNemar's exact test" if self.main_metric == "accuracy" else super().test

    def weighted(self, given: Mapping[str, float] | None, labels: Array) -> Self:
        """Return the task with weights of classes in the cross-entropy; raises ValueError for one that there is not."""
        for label in given or ():
            if label not in self.labels:
                raise ValueError(f"names no class of the data: {shortened(label)!r}")
        counts = np.bincount(labels, minlength=self.outputs)
        own = 1 / np.maximum(counts, 1) if given is None else np.array([given.get(name, 1.0) for name in self.labels])
        scaled = own * counts.sum() / (own * counts).sum()
        return replace(self, weights=tuple(map(float, scaled)))

    def doubts(self, labels: Array) -> Iterator[str]:
        """Yield why accuracy misleads: one class has most of the rows, or another so few that losing it is not seen."""
        if self.main_metric != "accuracy" or not len(labels):
            return
        shares = np.bincount(labels, minlength=self.outputs) / len(labels)
        most, least = int(shares.argmax()), int(np.where(shares > 0, shares, np.inf).argmin())
        remedy = (
            "Let another metric decide: task.metric=macro_f1, mcc, balanced_accuracy or f1:CLASS; "
            "task.class_weights=balanced makes rare classes count in the loss."
        )
        if shares[most] >= MISLEADS:
            yield (
                f"Accuracy misleads here: always answering {shortened(self.labels[most])!r} is right on "
                f"{shares[most]:.1%} of the training rows. {remedy}"
            )
        elif shares[least] < UNSEEN / int((shares > 0).sum()):
            yield (
                f"Accuracy hardly sees {shortened(self.labels[least])!r}, which has {shares[least]:.2%} of the "
                f"training rows: never finding it costs no more. {remedy}"
            )

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have a label (batch,)."""
        return labels != self.missing

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in nats (batch,), times the weight of the row's class."""
        errors = functional.cross_entropy(logits, labels, reduction="none")
        return errors * errors.new_tensor(self.weights)[labels] if self.weights else errors

    def head_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        return self.mean_loss(logits, labels) if self.weights else functional.cross_entropy(logits, labels)

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """Return `soft_target_loss`: KL(others || logits) in nats."""
        return soft_target_loss(logits, others, temperature)

    def probabilities(self, logits: Array) -> Array:
        """Return the softmax."""
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        shares: Array = shifted / shifted.sum(-1, keepdims=True)
        return shares

    def of_probabilities(self, shares: Array) -> Array:
        """Return their logarithms, less the mean of each row, as a head's logits lie around 0."""
        logs = np.log(np.maximum(shares.astype(np.float64), LEAST))
        centred: Array = logs - logs.mean(-1, keepdims=True)
        return centred

    def improper(self, shares: Array) -> Array:
        """Return where they do not sum to 1."""
        off: Array = np.abs(shares.sum(-1) - 1) > SUMS
        return off

    def mislabelled(self, logits: Array, labels: Array) -> Array:
        """Return `label_errors`."""
        return label_errors(self.probabilities(logits), labels)

    def predictions(self, logits: Array) -> Array:
        """Return the index of the largest logit of each row."""
        best: Array = logits.argmax(-1)
        return best

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return label and probability of each row, with all probabilities beside them."""
        return [
            {
                "label": self.labels[int(row.argmax())],
                "probability": float(row.max()),
                "probabilities": {label: float(share) for label, share in zip(self.labels, row, strict=True)},
            }
            for row in self.probabilities(logits)
        ]

    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Return label and probability of each row: "good 0.98"."""
        return [f"{answer['label']} {answer['probability']:.2f}" for answer in self.describe(logits)]

    def shown_label(self, label: Any) -> str:
        """Return the class of an index."""
        return self.labels[int(label)]

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return accuracy, macro F1 and balanced accuracy over the classes that occur, and Matthews' correlation.

        The F1 of one class is beside them where it decides.
        """
        counts = self._counts(self.predictions(logits), labels)
        return {name: float(value) for name, value in self._values(*counts).items()}

    def _counts(self, predicted: Array, labels: Array) -> tuple[Array, Array, Array]:
        """Return how often each class is true, predicted, and both (classes,)."""
        right = labels[predicted == labels]
        true, answered, both = (np.bincount(side, minlength=self.outputs) for side in (labels, predicted, right))
        return true, answered, both

    def _values(self, true: Array, predicted: Array, right: Array) -> dict[str, Array]:
        """Return metrics of counts (…, classes)."""
        found = of_counts(true, predicted, right)
        if self.main_metric not in found:
            chosen = self.labels.index(self.main_metric.removeprefix(F1_OF))
            found[self.main_metric] = f1_of(true, predicted, right)[..., chosen]
        return found

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return Wilson's interval for accuracy, a bootstrap interval for the others."""
        predicted = self.predictions(logits)
        cells, counts = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
        columns = _counted(cells[:, 0], self.outputs, cells[:, 1])
        draws = [self._values(*np.split(t @ columns, 3, axis=1)) for t in paired.resampled(len(cells), counts)]
        found = {
            name: tuple(map(float, np.quantile(np.concatenate([draw[name] for draw in draws]), [0.025, 0.975])))
            for name in draws[0]
        }
        return {name: (low, high) for name, (low, high) in found.items()} | {
            "accuracy": wilson(int((predicted == labels).sum()), len(labels))
        }

    def by_class(self, logits: Array, labels: Array) -> list[ByClass]:
        """Return precision, recall and F1 of each class."""
        true, answered, right = self._counts(self.predictions(logits), labels)
        precisions, recalls = (right / np.maximum(side, 1) for side in (answered, true))
        columns = true, answered, precisions, recalls, f1_of(true, answered, right)
        return [
            ByClass(
                label=label, rows=int(rows), answered=int(answers), precision=float(precision), recall=float(recall),
                f1=float(f1),
            )
            for label, rows, answers, precision, recall, f1 in zip(self.labels, *columns, strict=True)
        ]  # fmt: skip

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows with the same predicted label."""
        return float((self.predictions(logits) == self.predictions(others)).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare accuracies by McNemar's exact test, another metric by a paired bootstrap."""
        answers = [self.predictions(side) for side in (logits, others)]
        if self.main_metric == "accuracy":
            right, other = (side == labels for side in answers)
            return paired.of_right_answers(self.main_metric, right, other)
        cells, counts = np.unique(np.stack([labels, *answers], axis=1), axis=0, return_counts=True)
        columns = _counted(cells[:, 0], self.outputs, cells[:, 1], cells[:, 2])

        def difference(sums: Array) -> Array:
            true, *parts = np.split(sums, 5, axis=1)
            ours, theirs = (self._values(true, *parts[at : at + 2])[self.main_metric] for at in (0, 2))
            return ours - theirs

        return paired.of_resampled_rows(self.main_metric, columns, difference, counts)

    def judge(self, head: Head, logits: Array, labels: Array) -> Iterator[str]:
        """Yield how often it is right; raises ModelError where its outputs stand for other labels."""
        return judge_classes(head, self.labels, self.predictions(logits), labels)

    def constant(self, labels: Array) -> Baseline:
        """Return the class that most rows have."""
        answer = np.bincount(labels, minlength=self.outputs).argmax()
        logits = np.eye(self.outputs)[answer]
        kind = f"always answering {shortened(self.labels[answer])!r}, the majority class"
        return Baseline(kind=kind, parameters=0, logits=lambda texts: np.tile(logits, (len(texts), 1)))

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


def _counted(labels: Array, classes: int, *answers: Array) -> Array:
    """Return what is summed over rows for every metric, (rows, columns of all classes).

    For each class 1 where it is the label, then for each column of answers 1 where it is the answer, and where it is
    the right one.
    """
    identity = np.eye(classes)
    true = identity[labels]
    return np.concatenate(
        [true, *(part for side in answers for part in (identity[side], identity[side] * true))], axis=1
    )
