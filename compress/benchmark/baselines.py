"""The cheap thing that a student must beat: TF-IDF and a linear model."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

import numpy as np

from compress.benchmark.latency import entry
from compress.data.dataset import Dataset, Split
from compress.data.scripts import is_unsegmented
from compress.runtimes.devices import CPU
from compress.tasks.classification import Classification

_WORD = re.compile(r"\b\w\w+\b")  # what scikit-learn takes for a word
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


def tfidf(data: Dataset, rows: int, threads: int) -> dict[str, Any]:
    """Return the record of TF-IDF with logistic or ridge regression, trained on the training rows.

    Which n-grams are counted depends on the script and on how much text there is; ``kind`` says it. Both texts of a
    pair are joined. Latency is that of one text at a time, tokenization included, as it cannot be told apart. The
    record's ``logits`` (rows, outputs) are those of the test rows.
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    start = time.perf_counter()
    classes = isinstance(data.task, Classification)
    linear = LogisticRegression(C=4.0, max_iter=1000) if classes else Ridge()
    training = _joined(data.train)
    kinds = n_grams(training)
    vectorizers = [
        TfidfVectorizer(
            analyzer=kind.analyzer,
            ngram_range=(kind.shortest, kind.longest),
            sublinear_tf=True,
            max_features=max(1, min(MOST_FEATURES * 2 // len(kinds), MOST_WEIGHTS // data.task.outputs)),
        )
        for kind in kinds
    ]

    def features(texts: list[str]) -> Any:
        return sparse.hstack([vectorizer.transform(texts) for vectorizer in vectorizers], format="csr")

    for vectorizer in vectorizers:
        vectorizer.fit(training)
    linear.fit(features(training), data.train.known_labels)
    seconds = time.perf_counter() - start
    texts = _joined(data.test)
    if classes:
        logits = np.full((len(texts), data.task.outputs), -30.0)
        logits[:, linear.classes_] = linear.predict_log_proba(features(texts))
    else:
        logits = linear.predict(features(texts))[:, None]
    spent = []
    for row in np.linspace(0, len(texts) - 1, min(rows, len(texts))).round().astype(int):
        start = time.perf_counter()
        linear.predict(features([texts[row]]))
        spent.append(time.perf_counter() - start)
    return {
        "name": "tfidf",
        "kind": f"TF-IDF of {_told(kinds)} + {'logistic' if classes else 'ridge'} regression",
        "runtime": "scikit-learn",
        "precision": "fp64",
        "logits": logits,
        "metrics": data.task.metrics(logits, data.test.known_labels),
        "interval": data.task.intervals(logits, data.test.known_labels),
        "parameters": int(linear.coef_.size),
        "seconds": seconds,
        "latency": [entry(spent, device=CPU, threads=threads, batch=1, tokens="real", tokenization=True)],
    }


def _told(kinds: list[NGrams]) -> str:
    """Return the n-grams in words: "words (1–2)"."""
    return " and ".join(f"{kind.name} ({kind.shortest}–{kind.longest})" for kind in kinds)


def _joined(split: Split) -> list[str]:
    if split.pairs is None:
        return list(split.texts)
    return [f"{text} {pair}" for text, pair in zip(split.texts, split.pairs, strict=True)]
