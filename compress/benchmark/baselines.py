"""The cheap thing that a student must beat: TF-IDF and a linear model."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from msgspec import convert

from compress.benchmark.figures import Baseline, Latency
from compress.benchmark.latency import Spent, entry, quieter
from compress.data.dataset import Dataset, Split
from compress.data.scripts import is_unsegmented
from compress.runtimes.devices import CPU
from compress.tasks.base import Array

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


def n_grams(texts: list[str]) -> list[NGrams]:
    """Return what suits the texts: words and characters within words, or characters where no space divides words."""
    few = sum(map(len, texts)) <= MOST_CHARACTERS
    if is_unsegmented(texts) or not any(map(_WORD.search, texts)):
        return [NGrams("characters", "char", 3 if few else 2)]
    words = NGrams("words", "word", 2)
    return [words, NGrams("characters within words", "char_wb", 5, 2)] if few else [words]


class TfIdf:
    """TF-IDF of the n-grams that suit some texts; how many are counted depends on the outputs of what they are for."""

    def __init__(self, texts: list[str], outputs: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        kinds = n_grams(texts)
        self.kind = f"TF-IDF of {' and '.join(f'{kind.name} ({kind.shortest}–{kind.longest})' for kind in kinds)}"
        self.vectorizers = [
            TfidfVectorizer(
                analyzer=kind.analyzer,
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


def tfidf(data: Dataset, rows: int, threads: int) -> tuple[Baseline, Array]:
    """Return the task's cheap baseline, trained on the training rows, and its logits (rows, outputs) on the test rows.

    Which n-grams are counted depends on the script and on how much text there is; ``kind`` says it. Both texts of a
    pair are joined. Latency is that of one text at a time, tokenization included, as it cannot be told apart.
    """
    start = time.perf_counter()
    training, texts = _joined(data.train), _joined(data.test)
    baseline = data.task.baseline(training, data.train.known_labels, TfIdf(training, data.task.outputs))
    seconds = time.perf_counter() - start
    logits = baseline.logits(texts)
    chosen = [texts[row] for row in np.linspace(0, len(texts) - 1, min(rows, len(texts))).round().astype(int)]
    spent, turns = quieter(partial(_timed, baseline.logits, chosen), [len(text) for text in chosen])
    timing = entry(spent[TFIDF, False], turns, device=CPU, threads=threads, batch=1, tokens="real", tokenization=True)
    figures = Baseline(
        name=TFIDF,
        kind=baseline.kind,
        runtime="scikit-learn",
        precision="fp64",
        metrics=data.task.metrics(logits, data.test.known_labels),
        interval=data.task.intervals(logits, data.test.known_labels),
        parameters=baseline.parameters,
        seconds=seconds,
        latency=[convert(timing, Latency)],
    )
    return figures, logits


def _timed(logits: Callable[[Sequence[str]], Array], texts: Sequence[str], look: Callable[[], None]) -> Spent:
    spent = []
    for text in texts:
        start = time.perf_counter()
        logits([text])
        spent.append(time.perf_counter() - start)
        look()
    return {(TFIDF, False): spent}


def _joined(split: Split) -> list[str]:
    if split.pairs is None:
        return list(split.texts)
    return [f"{text} {pair}" for text, pair in zip(split.texts, split.pairs, strict=True)]
