"""Any number of labels for a text or a pair of texts: none, one or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from compress.errors import DataError
from compress.settings import nearest
from compress.tasks import paired
from compress.tasks.adoption import Adoption, adopt_labels
from compress.tasks.base import LEAST, Array, Baseline, ByClass, Features, Labelled, Task
from compress.tasks.doubts import LONGEST
from compress.tasks.functions import label_loss, label_soft_target_loss, mean_of_softened_labels
from compress.tasks.heads import THRESHOLDS
from compress.tasks.judging import Head, judge_labels
from compress.tasks.label_lists import listed, names_of
from compress.tasks.label_scores import EXACT, F1_OF, METRICS, LabelScores
from compress.tasks.one_vs_rest import one_vs_rest
from compress.tasks.paired import Difference
from compress.tasks.thresholds import HALF, checked, cuts, tuned
from compress.wording import counted, shortened

PROBLEM = "multi_label_classification"  # transformers' name for it
NONE = "(none)"  # how an answer without labels is shown


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of labels for a text or a pair of texts; each has a logit, whose sigmoid is its probability.

    Labels are (rows, labels): 1, 0, or NaN for a label that is not known. Label ``n`` is answered where its probability
    is ``thresholds[n]`` or more; without thresholds, one half.
    """

    labels: tuple[str, ...]
    thresholds: tuple[float, ...] = ()

    name = "multi_label"
    auto = AutoModelForSequenceClassification
    head = "classification head"
    pipeline = "text-classification"
    predicts = "sets of labels"
    distributes = True
    several = True
    missing = np.nan

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return whether all of them are lists."""
        return all(names_of(label) is not None for label in set(labels))

    @classmethod
    def check(cls, splits: Sequence[Labelled], *, asked: bool) -> None:
        """Raise DataError where there are no two labels, or where one is too long, or every row has it."""
        train = splits[0]
        counts = Counter(name for word in train.words for name in names_of(word) or ())
        for rows in splits:
            for index, word in enumerate(rows.words):
                long = next((name for name in names_of(word) or () if len(name) > LONGEST), None)
                if long is not None:
                    raise DataError(
                        f"{rows.place(index)}: a label has {len(long):,} characters. Set data.label to the right "
                        "column, or data.separator to the sign between labels."
                    )
        if len(counts) < 2:
            there = f"the only label is {shortened(next(iter(counts)))!r}" if counts else "no row has a label"
            raise DataError(
                f"{train.source}: {there}, and multi_label needs two or more. Set data.label to the right column, "
                "data.separator to the sign between labels, or task=classification for one label per row."
            )
        for name, count in counts.items():
            if count == len(train.words):
                raise DataError(
                    f"{train.source}: every row has the label {shortened(name)!r}; there is nothing to learn of it. "
                    "Remove it, or give rows without it."
                )

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task with the names in these lists in order, numerically where all are whole numbers."""
        distinct = sorted({name for label in set(labels) for name in names_of(label) or ()})
        if all(name.removeprefix("-").isdecimal() for name in distinct):
            distinct.sort(key=int)
        return cls(tuple(distinct))

    @classmethod
    def owns(cls, config: Any) -> bool:
        """Return whether transformers' configuration says so."""
        return bool(config.problem_type == PROBLEM)

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task with the names of ``id2label`` and the thresholds that the configuration keeps."""
        names = tuple(str(config.id2label[index]) for index in range(len(config.id2label)))
        return cls(names, checked(getattr(config, THRESHOLDS, None), len(names)))

    @classmethod
    def refusal(cls, label: str) -> None:
        """Return None: lists are checked when they are read."""

    def names(self, label: str) -> Sequence[str]:
        """Return the names in a row's list."""
        return names_of(label) or ()

    def unknown(self, label: str) -> bool:
        """Return whether it is none of the labels."""
        return label not in self.labels

    def extended(self, labels: Iterable[str]) -> Self:
        """Return the task with these labels too, in order."""
        return self.of_labels([listed([*self.labels, *labels])])

    def classes(self, labels: Sequence[str]) -> Sequence[Hashable]:
        """Return the rarest label of each row, so that splits have rows of every label; None for a row without any."""
        rows = [names_of(label) or () for label in labels]
        counts = Counter(name for names in rows for name in names)
        return [min(names, key=lambda name: (counts[name], name), default=None) for names in rows]

    def classes_of(self, labels: Array) -> Array:
        """Return the rarest label of each row; the number of labels for a row without any."""
        rarest = np.argsort((labels == 1).sum(0), kind="stable")
        found = np.full(len(labels), labels.shape[1], dtype=np.min_scalar_type(labels.shape[1]))
        for label in rarest[::-1]:
            found[labels[:, label] == 1] = label
        return found

    @property
    def output_names(self) -> tuple[str, ...]:
        """The labels."""
        return self.labels

    @property
    def cut_at(self) -> tuple[float, ...]:
        """The probability from which each label is answered."""
        return self.thresholds or (HALF,) * len(self.labels)

    def head_config(self) -> dict[str, Any]:
        """Return num_labels, the two label dictionaries, and the thresholds where there are some."""
        return {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "num_labels": len(self.labels),
            "problem_type": PROBLEM,
        } | ({THRESHOLDS: list(self.thresholds)} if self.thresholds else {})

    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how a model's outputs are read as the data's labels; raises Refusal."""
        return adopt_labels(config, self.labels, mapping)

    def renumbered(self, adoption: Adoption, labels: Sequence[Array]) -> tuple[Task, list[Array]]:
        """Return the labels in the order of a model's head; those that only the model knows are not known (NaN)."""
        if adoption.names == self.labels:
            return self, list(labels)
        places = [adoption.outputs[label] for label in self.labels]
        moved = [np.full((len(known), len(adoption.names)), np.nan, known.dtype) for known in labels]
        for new, known in zip(moved, labels, strict=True):
            new[:, places] = known
        weight_of = dict(zip(places, self.weights, strict=False))
        weights = tuple(weight_of.get(output, 1.0) for output in range(len(adoption.names))) if self.weights else ()
        return replace(self, labels=adoption.names, weights=weights), moved

    def encode(self, label: str) -> list[int]:
        """Return 1 for each label in the list, 0 for the others; raises ValueError for one outside `labels`."""
        names = names_of(label)
        if names is None or not set(names) <= set(self.labels):
            raise ValueError(label)
        return [int(name in names) for name in self.labels]

    def encoded(self, codes: Sequence[Sequence[int]]) -> Array:
        """Return them (rows, labels)."""
        return np.asarray(codes, dtype=np.float32).reshape(len(codes), len(self.labels))

    def too_few(self, labels: Array) -> str:
        """Return why, where no label is there in some rows and absent from others."""
        share = labels.mean(0)
        return "" if ((share > 0) & (share < 1)).any() else "leaves no label that some rows have and others lack"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Micro and macro F1, average precision, the share of exact rows, and the F1 of each label."""
        return (*METRICS, *(f"{F1_OF}{label}" for label in self.labels))

    @property
    def test(self) -> str:
        """McNemar's test for the share of exact rows, the bootstrap for the others."""
        return "McNemar's exact test" if self.main_metric == EXACT else super().test

    def weighted(self, given: Mapping[str, float] | None, labels: Array) -> Self:
        """Return the task with weights of rows that have a label against rows that lack it, 1 for labels not given.

        None: as many times as there are more rows without the label in the training split, so that both sides weigh
        the same. Raises ValueError for a label that there is not, or, with None, for one without a training row.
        """
        if given is not None:
            if unknown := next((name for name in given if name not in self.labels), None):
                near = nearest(unknown, self.labels).rstrip(".")
                raise ValueError(f"names {unknown!r}, which is not a label ({near})")
            return replace(self, weights=tuple(given.get(label, 1.0) for label in self.labels))
        there = labels.sum(0)
        if not there.all():
            raise ValueError(f"cannot balance {self.labels[int(there.argmin())]!r}, which no training row has")
        return replace(self, weights=tuple(float(share) for share in (len(labels) - there) / there))

    def doubts(self, labels: Array) -> Iterator[str]:
        """Yield that no row has two labels, where that is so."""
        if np.nansum(labels, axis=-1).max(initial=0) <= 1:
            yield (
                "No training row has two labels. If a sign separates them in a field, name it: data.separator; if "
                "every row has one, task=classification fits better."
            )

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have a label that is known (batch,)."""
        return (~labels.isnan()).any(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return `label_loss` (batch,)."""
        return label_loss(logits, labels, logits.new_tensor(self.weights) if self.weights else None)

    def head_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean binary cross-entropy in nats, over rows and labels."""
        return functional.binary_cross_entropy_with_logits(logits, labels)

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """Return `label_soft_target_loss`."""
        return label_soft_target_loss(logits, others, temperature)

    def softened(self, members: Tensor, temperature: float) -> Tensor:
        """Return `mean_of_softened_labels`."""
        return mean_of_softened_labels(members[:, :, 0], members[:, :, 1], temperature)

    def probabilities(self, logits: Array) -> Array:
        """Return the sigmoid."""
        shares: Array = 1 / (1 + np.exp(-logits))
        return shares

    def of_probabilities(self, shares: Array) -> Array:
        """Return the logarithm of each label's odds."""
        inside = np.clip(shares.astype(np.float64), LEAST, 1 - LEAST)
        odds: Array = np.log(inside) - np.log1p(-inside)
        return odds

    def tuned(self, answers: Callable[[], Array], labels: Array) -> dict[str, Any]:
        """Return the thresholds of a model that answers validation rows with these logits."""
        return {THRESHOLDS: tuned(answers(), labels)}

    def aligned(self, logits: Array, config: Any) -> Array:
        """Return logits moved so that a model's own thresholds lie where this task's are."""
        theirs = self.of_config(config)
        if theirs.cut_at == self.cut_at:
            return logits
        moved: Array = (logits - cuts(theirs.cut_at) + cuts(self.cut_at)).astype(logits.dtype)
        return moved

    def predictions(self, logits: Array) -> Array:
        """Return which labels are answered (rows, labels)."""
        answered: Array = logits >= cuts(self.cut_at)
        return answered

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return the labels of each row, with all probabilities beside them."""
        shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
        return [
            {
                "labels": [label for label, there in zip(self.labels, answered, strict=True) if there],
                "probabilities": {label: float(share) for label, share in zip(self.labels, row, strict=True)},
            }
            for row, answered in zip(shares, self.predictions(logits), strict=True)
        ]

    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Return the labels of each row: "cheap, near"."""
        return [self.shown_label(row) for row in self.predictions(logits)]

    def shown_label(self, label: Any) -> str:
        """Return the labels of a row (labels,)."""
        return ", ".join(name for name, there in zip(self.labels, label, strict=True) if there == 1) or NONE

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return micro and macro F1, average precision and the share of rows with exactly their labels."""
        return self._scores(logits, labels).metrics(self._quoted)

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals, and Wilson's for the share of exact rows."""
        return self._scores(logits, labels).intervals(self._quoted)

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows with the same labels."""
        return float((self.predictions(logits) == self.predictions(others)).all(-1).mean())

    def by_class(self, logits: Array, labels: Array) -> list[ByClass]:
        """Return precision, recall and F1 of each label."""
        return self._scores(logits, labels).by_class()

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare shares of exact rows by McNemar's exact test, another metric by a paired bootstrap."""
        ours, theirs = (self._scores(answers, labels) for answers in (logits, others))
        if self.main_metric == EXACT:
            return paired.of_right_answers(self.main_metric, ours.exact, theirs.exact)

        def difference(times: Array) -> Array:
            apart: Array = ours.values(self.main_metric, times) - theirs.values(self.main_metric, times)
            return apart

        whole = difference(np.ones((1, len(labels)), dtype=np.int64))
        return paired.of_draws(self.main_metric, float(whole[0]), map(difference, paired.resampled(len(labels))))

    def judge(self, head: Head, logits: Array, labels: Array) -> Iterator[str]:
        """Yield how good it is; raises ModelError where its outputs stand for other labels."""
        return judge_labels(head, self.labels, self.metrics(logits, labels), self.predictions(logits), labels)

    def constant(self, labels: Array) -> Baseline:
        """Return the labels that have the highest micro F1 where every row gets the same ones."""
        there = np.nan_to_num(labels).sum(0)
        order = np.argsort(-there, kind="stable")
        answers = np.arange(1, len(order) + 1) * len(labels)
        most = int((2 * np.cumsum(there[order]) / (answers + there.sum())).argmax()) + 1
        logits = np.full(len(order), -1.0)
        logits[order[:most]] = 1.0
        kind = f"always answering {counted(most, 'label')}, the most frequent"
        return Baseline(
            kind=kind, parameters=0, logits=lambda texts: np.tile(logits + cuts(self.cut_at), (len(texts), 1))
        )

    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return a logistic regression for each label, with thresholds of its own."""
        linear = one_vs_rest(texts, labels, features)
        return replace(linear, logits=lambda given: linear.logits(given) + cuts(self.cut_at))

    def _scores(self, logits: Array, labels: Array) -> LabelScores:
        return LabelScores(self.labels, logits, self.predictions(logits), labels)

    @property
    def _quoted(self) -> tuple[str, ...]:
        """The metrics that are quoted: the F1 of one label where it decides."""
        return tuple(dict.fromkeys((*METRICS, self.main_metric)))
