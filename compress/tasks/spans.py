"""The span of a context that answers a question, or none: extractive question answering."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForQuestionAnswering

from compress.errors import DataError
from compress.tasks import paired, span_labels, span_scores
from compress.tasks.adoption import Adoption, OtherTaskRefusal
from compress.tasks.base import Array, Baseline, Features, Labelled, Task
from compress.tasks.functions import UNLABELLED, span_loss, span_soft_target_loss
from compress.tasks.heads import MARK, NULL_THRESHOLD, OVERLAP, STARTS_AND_ENDS, UNANSWERABLE, output_count
from compress.tasks.paired import Difference
from compress.tasks.span_baseline import linear_reader
from compress.tasks.span_decoding import BestSpans, best, n_best, windows_of
from compress.tasks.span_labels import Gold
from compress.wording import shortened

F1, EXACT = "f1", "exact"
OF_ANSWERABLE, OF_UNANSWERABLE = "f1_answerable", "exact_unanswerable"
NOTHING = "(none)"  # how no answer is shown
BESTS = 20  # spans among which an answer's probability is shared out, as in the official baselines
SHOWN = 5  # of these, in an answer
START_AND_END = ("start", "end")
EXTENTS = 4  # numbers of a position where rows are evaluated: `compress.tasks.span_decoding`


@dataclass(frozen=True)
class AnswerSpans(Task):
    """The span of the second text, a context, that answers the first, a question; perhaps there is none.

    As read, a label is a context with the answers in it, `compress.tasks.span_labels.written`. A token of the context
    answers for its characters. Where questions may be ``unanswerable``, no answer is given if what speaks for it, the
    logits of the first token, exceeds the best span's by more than ``null_threshold``.
    """

    unanswerable: bool = False
    null_threshold: float = 0.0
    stride: int | None = None

    name = "spans"
    auto = AutoModelForQuestionAnswering
    head = "question answering head"
    pipeline = "question-answering"
    predicts = "spans of a context"
    distributes = True
    missing = UNLABELLED
    by_token = True
    windows = True
    graph_outputs = STARTS_AND_ENDS

    # labels as they are read

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return whether all of them are contexts with answers."""
        return all(span_labels.read(label) is not None for label in labels)

    @classmethod
    def check(cls, splits: Sequence[Labelled], *, asked: bool) -> None:
        """Raise DataError for rows without a context, and where no training question has an answer."""
        for rows in splits:
            if rows.pairs is None:
                raise DataError(
                    f"{rows.source}: has one text per row, and the task {cls.name} needs a question and a context. "
                    "Name their columns: data.text=QUESTION data.text_pair=CONTEXT data.label=ANSWERS."
                )
        train = splits[0]
        read = [span_labels.read(label) for label in train.words]
        if None not in read and not any(gold.answers for gold in read if gold is not None):
            raise DataError(
                f"{train.source}: no question has an answer; there is nothing to learn. Set data.label to the column "
                "with the answers."
            )

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task, in which questions may be unanswerable where some of these are."""
        read = [span_labels.read(label) for label in labels]
        if None in read:
            raise ValueError("labels of another task")
        return cls(unanswerable=any(not gold.answers for gold in read if gold is not None))

    @classmethod
    def refusal(cls, label: str) -> tuple[str, str] | None:
        """Return why a label cannot be read as a context with answers."""
        if span_labels.read(label) is not None:
            return None
        return (
            f"the label {shortened(label)!r} is not a list of answers.",
            'Write answers as SQuAD does: {"text": ["…"], "answer_start": [0]}, or [{"text": "…", "answer_start": 0}].',
        )

    def classes(self, labels: Sequence[str]) -> Sequence[Hashable] | None:
        """Return which questions have an answer; None where all have."""
        return ['"answers": []' in label[:16] for label in labels] if self.unanswerable else None

    @classmethod
    def cut_by(cls, rows: Labelled) -> Sequence[str] | None:
        """Return the contexts: questions about the same one are never on both sides of a cut."""
        return rows.pairs

    def encode(self, label: str) -> list[int]:
        """Return the context and the answers as whole numbers; raises ValueError for another label."""
        gold = span_labels.read(label)
        if gold is None:
            raise ValueError(label)
        return span_labels.packed(gold)

    def encoded(self, codes: Sequence[Sequence[int]]) -> Array:
        """Return them (rows, numbers)."""
        return span_labels.filled(codes)

    @classmethod
    def marks(cls, label: Array, extents: Array) -> Array:
        """Return `compress.tasks.span_labels.marks`."""
        return span_labels.marks(span_labels.answers_in(label), extents)

    @property
    def overlap(self) -> int | None:
        """Tokens that neighbouring windows share."""
        return self.stride

    def overlapping(self, tokens: int) -> Self:
        """Return the task whose windows share that many tokens."""
        return replace(self, stride=tokens)

    def too_few(self, labels: Array) -> str:
        """Return why, where no question has an answer."""
        return "" if (labels[:, 0] > 0).any() else "leaves no question that has an answer"

    # the head of a model

    @classmethod
    def owns(cls, config: Any) -> bool:
        """Return whether the class of the saved model answers questions."""
        return any(name.endswith("ForQuestionAnswering") for name in config.architectures or [])

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task with what the configuration keeps of it."""
        stride = getattr(config, OVERLAP, None)
        return cls(
            unanswerable=bool(getattr(config, UNANSWERABLE, False)),
            null_threshold=float(getattr(config, NULL_THRESHOLD, None) or 0.0),
            stride=None if stride is None else int(stride),
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        """Start and end."""
        return START_AND_END

    @property
    def label_names(self) -> tuple[str, ...]:
        """None: spans have no names."""
        return ()

    def head_config(self) -> dict[str, Any]:
        """Return an output for starts and one for ends."""
        return {
            MARK: self.name,
            "id2label": dict(enumerate(START_AND_END)),
            "label2id": {name: number for number, name in enumerate(START_AND_END)},
            "num_labels": len(START_AND_END),
            "problem_type": None,
            UNANSWERABLE: self.unanswerable,
            NULL_THRESHOLD: self.null_threshold,
            OVERLAP: self.stride,
        }

    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how a head is read: its first output is the start; raises Refusal."""
        if output_count(config) != len(START_AND_END):
            raise OtherTaskRefusal(
                f"has {output_count(config)} outputs where spans need two, their start and their end"
            )
        return Adoption(START_AND_END, {name: number for number, name in enumerate(START_AND_END)})

    @property
    def metric_names(self) -> tuple[str, ...]:
        """F1 of words and exact match; where questions may be unanswerable, also each kind of question by itself."""
        return (F1, EXACT, OF_ANSWERABLE, OF_UNANSWERABLE) if self.unanswerable else (F1, EXACT)

    @property
    def decides(self) -> list[Any]:
        """Also how windows overlap, and whether there may be no answer."""
        return [*super().decides, self.stride, self.unanswerable]

    # losses

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have a label (batch,)."""
        return (labels != UNLABELLED).any(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return `span_loss` of each row (batch,)."""
        return span_loss(logits, labels)

    def mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean of `loss`; of rows as they are evaluated, over their windows."""
        if logits.shape[-1] == EXTENTS:
            logits, labels = _windows_of_rows(logits.numpy(), labels.numpy())
        return super().mean_loss(logits, labels)

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """Return `span_soft_target_loss`: KL(others || logits) in nats over the positions of the context."""
        return span_soft_target_loss(logits, others, mask, temperature)

    def answers_in(self, mask: Tensor) -> int:
        """Return the number of rows of which something is read."""
        return int(mask.bool().any(-1).sum())

    # answers

    def tuned(self, answers: Callable[[], Array], labels: Array) -> dict[str, Any]:
        """Return the threshold with the highest F1 on validation rows, where questions may be unanswerable."""
        if not self.unanswerable:
            return {}
        found, golds = best(answers()), list(span_labels.golds(labels))
        given = span_scores.of_rows(self._texts(found.spans, golds), [gold.texts for gold in golds])[:, 1]
        none = np.array([not gold.answers for gold in golds], dtype=np.float64)
        margins = found.none - found.score
        order = np.argsort(margins, kind="stable")
        # where the threshold lies behind the first k margins, these rows are answered and the others are not
        sums = none.sum() + np.concatenate([[0], np.cumsum((given - none)[order])])
        k, ends = int(sums.argmax()), np.clip(margins[order], -1e4, 1e4)
        edges = np.concatenate([[ends[0] - 1], (ends[:-1] + ends[1:]) / 2, [ends[-1] + 1]])
        return {NULL_THRESHOLD: float(edges[k])}

    def aligned(self, logits: Array, config: Any) -> Array:
        """Return logits of no answer moved so that a model's own threshold lies where this task's is."""
        theirs = self.of_config(config).null_threshold
        if not self.unanswerable or theirs == self.null_threshold:
            return logits
        moved = logits.copy()
        moved[(logits[:, :, 2] == 0) & (logits[:, :, 3] == 0), 0] += self.null_threshold - theirs
        return moved

    def predictions(self, logits: Array) -> Array:
        """Return the characters of each answer (rows, 2), -1 for none."""
        found = best(logits)
        return np.where(self._is_none(found)[:, None], -1, found.spans)

    def _is_none(self, found: BestSpans) -> Array:
        none: Array = (found.spans[:, 0] < 0) | (self.unanswerable & (found.none - found.score > self.null_threshold))
        return none

    @staticmethod
    def _texts(spans: Array, golds: Sequence[Gold]) -> list[str]:
        pairs = zip(spans, golds, strict=True)
        return ["" if start < 0 else gold.context[start:end] for (start, end), gold in pairs]

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return the characters of each answer; None for no answer."""
        return [
            {"start": None, "end": None} if start < 0 else {"start": int(start), "end": int(end)}
            for start, end in self.predictions(logits)
        ]

    def answers(
        self, logits: Array, texts: Sequence[str], decoding: str = "", pairs: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the answer to each question as people wrote it: characters, text, score, and the next best ones.

        A score is the probability among the `BESTS` best spans and, where questions may be unanswerable, no answer.
        """
        contexts = [""] * len(texts) if pairs is None else pairs
        return [self._answer(*row) for row in zip(logits, texts, contexts, strict=True)]

    def _answer(self, logits: Array, question: str, context: str) -> dict[str, Any]:
        found = best(logits[None])
        spans = n_best(logits, BESTS)
        sums = np.array([score for _, _, score in spans] + [float(found.none[0])] * self.unanswerable)
        shares = np.exp(sums - sums.max(initial=-np.inf))
        shares = shares / max(shares.sum(), 1e-12)
        candidates = [
            {"answer": context[start:end], "start": start, "end": end, "score": float(share)}
            for (start, end, _), share in zip(spans, shares, strict=False)
        ]
        if bool(self._is_none(found)[0]):
            score = float(shares[-1]) if self.unanswerable else 0.0
            first: dict[str, Any] = {"answer": "", "start": None, "end": None, "score": score}
            return {"text": question, **first, "best": candidates[:SHOWN]}
        return {"text": question, **candidates[0], "best": candidates[:SHOWN]}

    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Return the text of each answer."""
        return [text or NOTHING for text in self._texts(self.predictions(logits), list(span_labels.golds(labels)))]

    def shown_label(self, label: Any) -> str:
        """Return the answers to a question."""
        gold = span_labels.unpacked(np.asarray(label))
        return " | ".join(dict.fromkeys(gold.texts)) if gold is not None and gold.answers else NOTHING

    def _sums(self, logits: Array, labels: Array) -> Array:
        """Return what metrics are shares of, by row (rows, 6): F1, exact, F1 × answerable, exact × none, these two."""
        golds = list(span_labels.golds(labels))
        answers = self._texts(self.predictions(logits), golds)
        exact, f1 = span_scores.of_rows(answers, [gold.texts for gold in golds]).T
        has = np.array([bool(gold.answers) for gold in golds], dtype=np.float64)
        return np.stack([f1, exact, f1 * has, exact * (1 - has), has, 1 - has], axis=1)

    def _values(self, sums: Array) -> dict[str, Array]:
        """Return metrics (samples,) of summed `_sums` (samples, 6)."""
        rows = np.maximum(sums[:, 4] + sums[:, 5], 1)
        values = {F1: sums[:, 0] / rows, EXACT: sums[:, 1] / rows}
        if self.unanswerable:
            values[OF_ANSWERABLE] = sums[:, 2] / np.maximum(sums[:, 4], 1)
            values[OF_UNANSWERABLE] = sums[:, 3] / np.maximum(sums[:, 5], 1)
        return values

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return F1 and exact match after the official normalisation, means over questions."""
        sums = self._sums(logits, labels).sum(0, keepdims=True)
        return {name: float(value[0]) for name, value in self._values(sums).items()}

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals over questions."""
        columns = self._sums(logits, labels)
        draws = [self._values(times @ columns) for times in paired.resampled(len(columns))]
        bounds = {
            name: np.quantile(np.concatenate([draw[name] for draw in draws]), [0.025, 0.975]) for name in draws[0]
        }
        return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of questions with the same characters as their answer."""
        return float((self.predictions(logits) == self.predictions(others)).all(-1).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare the main metric by a paired bootstrap over questions."""
        return self._difference(self.main_metric, self._sums(logits, labels), self._sums(others, labels))

    def difference_over_seeds(self, logits: Sequence[Array], others: Sequence[Array], labels: Array) -> Difference:
        """Compare two ways to train over seeds and questions."""
        ways = [[self._sums(side, labels) for side in way] for way in (logits, others)]
        return paired.of_seeds_in_sums(self.main_metric, ways, lambda sums: self._values(sums)[self.main_metric])

    def guarded(self, logits: Array, others: Array, labels: Array) -> list[Difference]:
        """Return the differences on answerable and on unanswerable questions, where there are both."""
        if not self.unanswerable:
            return []
        ours, theirs = self._sums(logits, labels), self._sums(others, labels)
        return [self._difference(metric, ours, theirs) for metric in (OF_ANSWERABLE, OF_UNANSWERABLE)]

    def _difference(self, metric: str, ours: Array, theirs: Array) -> Difference:
        width = ours.shape[1]

        def differences(sums: Array) -> Array:
            apart: Array = self._values(sums[:, :width])[metric] - self._values(sums[:, width:])[metric]
            return apart

        return paired.of_resampled_rows(metric, np.concatenate([ours, theirs], axis=1), differences)

    @classmethod
    def joined(cls, text: str, pair: str) -> str:
        """Return question and context as a JSON list, which the baseline takes apart."""
        return json.dumps([text, pair], ensure_ascii=False)

    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return a linear model of how each word of the context goes with the question."""
        return linear_reader([json.loads(text) for text in texts], list(span_labels.golds(labels)))

    def constant(self, labels: Array) -> Baseline | None:
        """Return that there is no answer, where there may be none."""
        if not self.unanswerable:
            return None

        def logits(texts: Sequence[str]) -> Array:
            return np.tile(np.array([1.0 + max(self.null_threshold, 0.0), 0.0, 0.0, 0.0]), (len(texts), 1, 1))

        return Baseline(kind="always answering that there is no answer", parameters=0, logits=logits)


def _windows_of_rows(logits: Array, labels: Array) -> tuple[Tensor, Tensor]:
    """Return logits (windows, tokens, 2) and labels by token of rows as they are evaluated."""
    numbers = windows_of(logits)
    parts: list[tuple[Array, Array]] = []
    for row, label, own in zip(logits, labels, numbers, strict=True):
        answers = span_labels.answers_in(label)
        for number in range(1, int(own.max(initial=0)) + 1):
            window = row[(own == number) & (row[:, 2] >= 0)]
            parts.append((window[:, :2], span_labels.marks(answers, window[:, 2:].astype(np.int64))))
    width = max((len(marks) for _, marks in parts), default=1)
    sides = np.zeros((len(parts), width, 2), dtype=np.float32)
    by_token = np.full((len(parts), width), UNLABELLED, dtype=np.int64)
    for place, (values, marks) in enumerate(parts):
        sides[place, : len(marks)], by_token[place, : len(marks)] = values, marks
    return torch.from_numpy(sides), torch.from_numpy(by_token)
