"""A tag for each word of a text: names of people and places, slots, parts of speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForTokenClassification

from compress.errors import DataError
from compress.tasks import paired, tag_scores
from compress.tasks.adoption import Adoption, adopt_classes
from compress.tasks.base import Array, Baseline, ByClass, Features, Labelled, Task
from compress.tasks.division import divided, joined, words_of
from compress.tasks.functions import UNLABELLED, token_soft_target_loss
from compress.tasks.heads import MARK
from compress.tasks.judging import Head, judge_classes
from compress.tasks.paired import Difference
from compress.tasks.tag_baseline import linear_tagger
from compress.tasks.tag_schemes import (
    NONE,
    OUTSIDE,
    Scheme,
    Spans,
    follows_scheme,
    in_small_letters,
    letters_of,
    spans_of,
    strays,
    written,
)
from compress.tasks.viterbi import likeliest
from compress.wording import counted, shortened

VITERBI = "viterbi"
F1_OF = "f1:"  # before the type whose F1 it is
ENOUGH = 50  # spans of a type in the test rows, from which its recall is guarded by itself


@dataclass(frozen=True)
class Tags(Task):
    """A tag for each word, O, B-person, I-person, … or any others; a word's first token answers for it.

    As read, a label is the tags of a row with spaces between them, as many as the row has words.
    """

    tags: tuple[str, ...]

    name = "tags"
    auto = AutoModelForTokenClassification
    head = "token classification head"
    pipeline = "token-classification"
    predicts = "tags"
    distributes = True
    missing = UNLABELLED
    by_token = True
    decodings = ("likeliest", VITERBI)
    rule = "I-, E- and S- tags must follow the scheme: a span begins with B- and keeps its type"

    @property
    def is_raw(self) -> bool:
        """Whether tags mark no spans."""
        return self.spans.scheme is Scheme.raw

    @cached_property
    def spans(self) -> Spans:
        """What the tags mark."""
        return Spans(self.tags)

    # labels as they are read

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return whether labels are rows of tags that mark spans, most of them of several words."""
        words = sum(len(label.split()) for label in labels)
        return words >= 2 * len(labels) and follows_scheme(tag for label in labels for tag in label.split())

    @classmethod
    def check(cls, splits: Sequence[Labelled], *, asked: bool) -> None:
        """Raise DataError for second texts, and for rows with another number of tags than of words."""
        for rows in splits:
            if rows.pairs is not None:
                raise DataError(
                    f"{rows.source}: has two texts per row, and tags are of the words of one: data.text=COLUMN."
                )
            sizes = [
                (len(words_of(text)), len(label.split())) for text, label in zip(rows.texts, rows.words, strict=True)
            ]
            bad = [index for index, (words, tags) in enumerate(sizes) if words != tags]
            if bad:
                words, tags = sizes[bad[0]]
                more = f" {counted(len(bad) - 1, 'more row')} like it." if len(bad) > 1 else ""
                raise DataError(
                    f"{rows.place(bad[0])}: {counted(words, 'word')}, but {counted(tags, 'tag')} "
                    f"({shortened(rows.texts[bad[0]])!r}, {shortened(rows.words[bad[0]])!r}). "
                    f"Give each word one tag; spaces divide both.{more}"
                )

        _check_scheme(splits)

    @classmethod
    def repaired(cls, labels: Sequence[str]) -> list[str]:
        """Return the labels with their spans written as the scheme asks, each as CoNLL's evaluation reads it."""
        known = {tag for label in set(labels) for tag in label.split()}
        if not follows_scheme(known):
            return list(labels)
        letters = letters_of(known)
        made: dict[str, str] = {}
        for label in set(labels):
            tags = label.split()
            made[label] = " ".join(written(len(tags), spans_of(tags), letters))
        return [made[label] for label in labels]

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task with all tags: O, then the others by type."""
        known = {tag for label in set(labels) for tag in label.split()}
        return cls(tuple(sorted(known, key=lambda tag: (tag != OUTSIDE, tag.partition("-")[2], tag))))

    @classmethod
    def refusal(cls, label: str) -> None:
        """Return None: any word can be a tag, and `check` has counted them."""

    def names(self, label: str) -> Sequence[str]:
        """Return the tags of a row."""
        return label.split()

    def unknown(self, label: str) -> bool:
        """Return whether a tag is none of the task's."""
        return label not in self._numbers

    def can_do_without(self, name: str, known: Sequence[str]) -> bool:
        """Return whether another tag of the type is known: a type's I- alone may be missing from few rows."""
        kind = name.partition("-")[2]
        return not self.is_raw and any(tag.partition("-")[2] == kind for tag in known)

    def extended(self, names: Iterable[str]) -> Self:
        """Return the task that has these tags too."""
        return self.of_labels([*self.tags, *names])

    @classmethod
    def read(cls, text: str) -> str:
        """Return a text that people wrote with spaces between its words."""
        return joined([text[start:stop] for start, stop in divided(text)])

    def encode(self, label: str) -> list[int]:
        """Return the tags' numbers."""
        return [self._numbers[tag] for tag in label.split()]

    def encoded(self, codes: Sequence[list[int]]) -> Array:
        """Return them (rows, words), `UNLABELLED` behind a row's last word."""
        filled = np.full((len(codes), max(map(len, codes), default=0)), UNLABELLED, dtype=np.int64)
        for row, own in enumerate(codes):
            filled[row, : len(own)] = own
        return filled

    @classmethod
    def answering(cls, text: str, pair: str | None, encoding: Any) -> list[int]:
        """Return each word's first token; -1 where it has none, or none that is left."""
        special = encoding.special_tokens_mask
        tokens = [(place, *extent) for place, extent in enumerate(encoding.offsets) if not special[place]]
        found, next_token = [], 0
        for start, stop in words_of(text):
            while next_token < len(tokens) and tokens[next_token][2] <= start:
                next_token += 1
            reached = next_token < len(tokens) and tokens[next_token][1] < stop
            found.append(tokens[next_token][0] if reached else -1)
        return found

    def too_few(self, labels: Array) -> str:
        """Return why, where all words have the same tag."""
        return "leaves words with one tag only" if len(np.unique(labels[labels != UNLABELLED])) < 2 else ""

    # the head of a model

    @classmethod
    def owns(cls, config: Any) -> bool:
        """Return whether the class of the saved model is a tagger's."""
        return any(name.endswith("ForTokenClassification") for name in config.architectures or [])

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task with the tags of ``id2label``."""
        return cls(tuple(str(config.id2label[index]) for index in range(len(config.id2label))))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The tags."""
        return self.tags

    def head_config(self) -> dict[str, Any]:
        """Return an output for each tag."""
        return {
            MARK: self.name,
            "id2label": dict(enumerate(self.tags)),
            "label2id": dict(self._numbers),
            "num_labels": len(self.tags),
            "problem_type": None,
        }

    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how a tagger's outputs are read as the data's tags; raises Refusal."""
        return adopt_classes(config, self.tags, mapping)

    def renumbered(self, adoption: Adoption, labels: Sequence[Array]) -> tuple[Task, list[Array]]:
        """Return the tags and the labels in the order of a model's head."""
        if adoption.names == self.tags:
            return self, list(labels)
        number = np.array([adoption.outputs[tag] for tag in self.tags], dtype=np.int64)
        return replace(self, tags=adoption.names), [
            np.where(own == UNLABELLED, own, number[np.maximum(own, 0)]) for own in labels
        ]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Micro F1, precision and recall of spans, accuracy of words, and the F1 of each type; of raw tags accuracy."""
        own = ("accuracy", "macro_f1") if self.is_raw else ("f1", "precision", "recall", "accuracy")
        return (*own, *(f"{F1_OF}{name}" for name in self.spans.types))

    def doubts(self, labels: Array) -> Iterator[str]:
        """Yield that accuracy says little of spans, where it decides."""
        if self.main_metric == "accuracy" and not self.is_raw:
            share = float((self.spans.positions[labels[labels != UNLABELLED]] == NONE).mean())
            yield (
                f"Accuracy misleads here: always answering {OUTSIDE!r} is right for {share:.1%} of the training words. "
                "Let a metric of spans decide: task.metric=f1."
            )

    # losses

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have a tag (batch,)."""
        return (labels != UNLABELLED).any(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each row in nats (batch,), mean over its words."""
        errors = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=UNLABELLED)
        return errors.sum(-1) / (labels != UNLABELLED).sum(-1)

    def mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, mean over all words, as transformers' heads have it; 0 where none has a tag."""
        known = labels != UNLABELLED
        return functional.cross_entropy(logits[known], labels[known], reduction="sum") / known.sum().clamp(min=1)

    def labels_in(self, labels: Tensor) -> int:
        """Return the number of words with a tag."""
        return int((labels != UNLABELLED).sum())

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """Return `token_soft_target_loss`: KL(others || logits) in nats of each word (arXiv:1909.00100)."""
        return token_soft_target_loss(logits, others, mask, temperature)

    def answers_in(self, mask: Tensor) -> int:
        """Return the number of words."""
        return int(mask.bool().sum())

    # answers

    def predictions(self, logits: Array) -> Array:
        """Return the tags' numbers (rows, words), -1 where a word has no answer."""
        best: Array = np.where(logits.any(-1), logits.argmax(-1), -1)
        return best

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return the tags of each row."""
        return [{"tags": [self.tags[number] for number in row if number >= 0]} for row in self.predictions(logits)]

    def answers(
        self, logits: Array, texts: Sequence[str], decoding: str = "", pairs: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the spans of each text as people wrote it: label, characters, score, the mean of its words' shares.

        Where tags mark no spans, each word is one. A word that no token was left for has no answer. Each word has its
        likeliest tag, or, with ``viterbi``, the row the likeliest tags that follow the scheme.
        """
        return [self._answer(row, text, decoding) for row, text in zip(logits, texts, strict=True)]

    def _answer(self, logits: Array, text: str, decoding: str) -> dict[str, Any]:
        words = divided(text)
        answered = np.flatnonzero(logits[: len(words)].any(-1))
        logs = logits[answered] - logits[answered].max(-1, keepdims=True)
        logs = logs - np.log(np.exp(logs).sum(-1, keepdims=True))
        chosen = likeliest(logs, self.spans.legal) if decoding == VITERBI else logs.argmax(-1)
        shares = np.exp(logs[np.arange(len(chosen)), chosen])
        tags = [OUTSIDE] * len(words)
        scores = np.zeros(len(words))
        for place, number, share in zip(answered, chosen, shares, strict=True):
            tags[place], scores[place] = self.tags[number], share
        extents = [(tags[place], place, place) for place in answered] if self.is_raw else spans_of(tags)
        spans = []
        for label, first, last in extents:
            start, stop = words[first][0], words[last][1]
            score = float(scores[first : last + 1].mean())
            spans.append({"label": label, "start": start, "end": stop, "text": text[start:stop], "score": score})
        told = "; ".join(f"{span['label']}: {span['text']} {span['score']:.2f}" for span in spans)
        return {"text": text, "answer": told or "nothing", "spans": spans}

    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Return the tags of each row: "O B-person"."""
        return [" ".join(row["tags"]) for row in self.describe(logits)]

    def shown_label(self, label: Any) -> str:
        """Return the tags of a row."""
        return " ".join(self.tags[tag] for tag in label if tag != UNLABELLED)

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return F1, precision and recall of spans, and the accuracy of words; of raw tags accuracy and macro F1.

        The F1 of one type is beside them where it decides.
        """
        sums = self._counts(logits, labels).columns.sum(0, keepdims=True)
        return {name: float(value[0]) for name, value in self._values(sums).items()}

    def _values(self, sums: Array) -> dict[str, Array]:
        """Return metrics of summed counts (samples, sums)."""
        found = tag_scores.figures(self.spans.scheme, sums)
        if self.main_metric not in found:
            chosen = self.spans.types.index(self.main_metric.removeprefix(F1_OF))
            found[self.main_metric] = tag_scores.f1_of_type(sums, chosen)
        return found

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals over rows."""
        columns = self._counts(logits, labels).columns
        draws = [self._values(times @ columns) for times in paired.resampled(len(columns))]
        bounds = {
            name: np.quantile(np.concatenate([draw[name] for draw in draws]), [0.025, 0.975]) for name in draws[0]
        }
        return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}

    def by_class(self, logits: Array, labels: Array) -> list[ByClass]:
        """Return precision, recall and F1 of each type of span, or of each raw tag; its rows are spans, or words."""
        return tag_scores.by_type(self.spans, self._counts(logits, labels))

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows of which all words have the same tag."""
        return float((self.predictions(logits) == self.predictions(others)).all(-1).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare the main metric by a paired bootstrap over rows."""
        columns = [self._counts(side, labels).columns for side in (logits, others)]
        metric, width = self.main_metric, columns[0].shape[1]

        def differences(sums: Array) -> Array:
            ours, theirs = (self._values(part)[metric] for part in (sums[:, :width], sums[:, width:]))
            return ours - theirs

        return paired.of_resampled_rows(metric, np.concatenate(columns, axis=1), differences)

    def difference_over_seeds(self, logits: Sequence[Array], others: Sequence[Array], labels: Array) -> Difference:
        """Compare two ways to train over seeds and rows."""
        ways = [[self._counts(side, labels).columns for side in way] for way in (logits, others)]
        return paired.of_seeds_in_sums(self.main_metric, ways, lambda sums: self._values(sums)[self.main_metric])

    def guarded(self, logits: Array, others: Array, labels: Array) -> list[Difference]:
        """Return the difference of the recall of each type, or raw tag, of which the labels have `ENOUGH`."""
        ours, theirs = (self._counts(side, labels) for side in (logits, others))
        found = []
        for index, name in enumerate(self.spans.types):
            if ours.true[:, index].sum() >= ENOUGH:
                parts = (ours.right[:, index], theirs.right[:, index], ours.true[:, index])
                columns = np.stack(parts, axis=1).astype(np.float64)
                found.append(paired.of_resampled_rows(f"recall:{name}", columns, _difference_of_recall))
        return found

    def judge(self, head: Head, logits: Array, labels: Array) -> Iterator[str]:
        """Yield how many words are right; raises ModelError where the outputs stand for other tags."""
        predicted = self.predictions(logits)
        known = (labels != UNLABELLED) & (predicted >= 0)
        return judge_classes(head, self.tags, predicted[known], labels[known], unit="word")

    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return a linear model of each word's shape, affixes and neighbours."""
        return linear_tagger(texts, labels, self.outputs)

    def constant(self, labels: Array) -> Baseline:
        """Return the tag that most words have."""
        answer = int(np.bincount(labels[labels != UNLABELLED], minlength=self.outputs).argmax())

        def logits(texts: Sequence[str]) -> Array:
            lengths = np.array([len(words_of(text)) for text in texts])
            there = np.arange(lengths.max(initial=0))[None, :] < lengths[:, None]
            found: Array = there[:, :, None] * np.eye(self.outputs)[answer]
            return found

        kind = f"always answering {shortened(self.tags[answer])!r}, the most frequent tag"
        return Baseline(kind=kind, parameters=0, logits=logits)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {tag: index for index, tag in enumerate(self.tags)}

    def _counts(self, logits: Array, labels: Array) -> tag_scores.Counts:
        return tag_scores.count(self.spans, self.predictions(logits), labels)


def _check_scheme(splits: Sequence[Labelled]) -> None:
    """Raise DataError where tags nearly mark spans: a few fit no scheme, or all are in small letters."""
    counts = Counter(tag for rows in splits for label in rows.words for tag in label.split())
    if in_small_letters(counts):
        shown = ", ".join(repr(tag) for tag in sorted(counts)[:3])
        raise DataError(f"{splits[0].source}: the tags ({shown}) mark spans in small letters. Write O, B- and I-.")
    for odd in strays(counts)[:1]:
        rows, index = next(
            (rows, index) for rows in splits for index, label in enumerate(rows.words) if odd in label.split()
        )
        raise DataError(
            f"{rows.place(index)}: the tag {shortened(odd)!r} ({counted(counts[odd], 'word')} of {counts.total():,}) "
            f"is neither {OUTSIDE} nor one as B-person, as nearly all others are. Correct it, or remove the row."
        )


def _difference_of_recall(sums: Array) -> Array:
    ours, theirs, true = sums.T
    found: Array = (ours - theirs) / np.maximum(true, 1)
    return found
