"""The cheap thing that a student must beat: TF-IDF and a linear model."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from compress.benchmark.figures import BaselineEntry
from compress.benchmark.latency import Texts
from compress.data.dataset import Dataset, Split
from compress.data.scripts import Segmentation, is_unsegmented, unsegmented_places
from compress.tasks import base
from compress.tasks.base import Array

_SPACED = re.compile(r"\w+")  # a word beside such of scripts without spaces
_WORD = re.compile(r"\b\w\w+\b")  # what scikit-learn takes for a word
TFIDF = "tfidf"
MOST_CHARACTERS = 5_000_000  # of the training texts, up to which n-grams of characters fit into time and memory
MOST_FEATURES = 100_000  # of each kind
MOST_WEIGHTS = 1_500_000  # of each kind, over all classes


class NGrams(NamedTuple):
    """One kind of n-grams, as scikit-learn's vectorizer takes it."""

    name: str
    analyzer: str
    longest: int
    shortest: int = 1
    words: Segmentation | None = None  # where no space divides them; None: scikit-learn's

    @property
    def how(self) -> dict[str, Any]:
        """What the vectorizer takes to cut texts."""
        if self.words is None:
            return {"analyzer": self.analyzer}
        return {"analyzer": self.analyzer, "tokenizer": partial(_cut, words=self.words), "token_pattern": None}


def n_grams(texts: list[str], words: Segmentation) -> list[NGrams]:
    """Return what suits the texts: words and characters within words, or characters where no space divides words.

    There ``words`` are counted too, unless they are letters.
    """
    few = sum(map(len, texts)) <= MOST_CHARACTERS
    unsegmented = is_unsegmented(texts)
    if unsegmented or not any(map(_WORD.search, texts)):
        found = unsegmented and words is not Segmentation.letters
        kinds = [NGrams(f"words of {words.value}", "word", 2, words=words)] if found else []
        return [*kinds, NGrams("characters", "char", 3 if few else 2)]
    spaced = NGrams("words", "word", 2)
    return [spaced, NGrams("characters within words", "char_wb", 5, 2)] if few else [spaced]


def _cut(text: str, words: Segmentation) -> list[str]:
    """Return the words of a text without its punctuation."""
    found, end = [], 0
    for begin, behind in unsegmented_places(text, words):
        found += _SPACED.findall(text[end:begin])
        found.append(text[begin:behind])
        end = behind
    return [*found, *_SPACED.findall(text[end:])]


class TfIdf:
    """TF-IDF of the n-grams that suit some texts; how many are counted depends on the outputs of what they are for."""

    def __init__(self, texts: list[str], outputs: int, words: Segmentation = Segmentation.letters) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        kinds = n_grams(texts, words)
        self.kind = f"TF-IDF of {' and '.join(f'{kind.name} ({kind.shortest}–{kind.longest})' for kind in kinds)}"
        self.vectorizers = [
            TfidfVectorizer(
                **kind.how,
                ngram_range=(kind.shortest, kind.longest),
                sublinear_tf=True,
                max_features=max(1, min(MOST_FEATURES * 2 // len(kinds), MOST_WEIGHTS // outputs)),
            )
            for kind in kinds
        ]
        for vectorizer in self.vectorizers:
            vectorizer.fit(texts)

    def __call__(self, texts: Sequence[str]) -> Any:
        """Return the features (texts, n-grams), sparse."""
        from scipy import sparse

        return sparse.hstack([vectorizer.transform(texts) for vectorizer in self.vectorizers], format="csr")


@dataclass(frozen=True)
class Cheap:
    """A cheap model: its figures, without timings and comparisons, and its logits (rows, outputs) on the test rows."""

    task: base.Task
    model: base.Baseline
    figures: BaselineEntry
    logits: Array

    def answer(self, texts: Texts) -> Array:
        """Return the logits (1, outputs) of one row, from its texts."""
        return self.model.logits([texts[0] if len(texts) == 1 else self.task.joined(*texts)])


def tfidf(data: Dataset) -> Cheap:
    """Return the task's cheap baseline, trained on the training rows.

    Which n-grams are counted depends on the script and on how much text there is; ``kind`` says it. Both texts of a
    pair are joined.
    """
    start = time.perf_counter()
    training = _joined(data.task, data.train)
    model = data.task.baseline(training, data.train.known_labels, TfIdf(training, data.task.outputs, data.words))
    return _cheap(TFIDF, "scikit-learn", model, data, time.perf_counter() - start)


def constant(data: Dataset) -> Cheap | None:
    """Return what answers every row alike, as the training rows suggest; None where the task has no such answer."""
    model = data.task.constant(data.train.known_labels)
    return None if model is None else _cheap("constant", "", model, data, None)


def _cheap(name: str, runtime: str, model: base.Baseline, data: Dataset, seconds: float | None) -> Cheap:
    logits, labels = model.logits(_joined(data.task, data.test)), data.test.known_labels
    figures = BaselineEntry(
        name=name, kind=model.kind, runtime=runtime, precision="fp64" if runtime else "",
        metrics=data.task.metrics(logits, labels), interval=data.task.intervals(logits, labels),
        parameters=model.parameters or None, seconds=seconds,
    )  # fmt: skip
    return Cheap(data.task, model, figures, logits)


def _joined(task: base.Task, split: Split) -> list[str]:
    if split.pairs is None:
        return list(split.texts)
    return [task.joined(text, pair) for text, pair in zip(split.texts, split.pairs, strict=True)]
