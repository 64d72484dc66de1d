"""The cheap thing that a student must beat: TF-IDF and a linear model."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from compress.benchmark.latency import entry
from compress.data.dataset import Dataset, Split
from compress.tasks import Classification


def tfidf(data: Dataset, rows: int, threads: int) -> dict[str, Any]:
    """Return the record of TF-IDF (1- and 2-grams) with logistic or ridge regression, trained on the training rows.

    Both texts of a pair are joined. Latency is that of one text at a time, tokenization included, as it
    cannot be told apart. The record's ``logits`` (rows, outputs) are those of the test rows.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    start = time.perf_counter()
    classes = isinstance(data.task, Classification)
    linear = LogisticRegression(C=4.0, max_iter=1000) if classes else Ridge()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), linear)
    model.fit(_joined(data.train), data.train.known_labels)
    seconds = time.perf_counter() - start
    texts = _joined(data.test)
    if classes:
        logits = np.full((len(texts), data.task.outputs), -30.0)
        logits[:, linear.classes_] = model.predict_log_proba(texts)
    else:
        logits = model.predict(texts)[:, None]
    spent = []
    for row in np.linspace(0, len(texts) - 1, min(rows, len(texts))).round().astype(int):
        start = time.perf_counter()
        model.predict([texts[row]])
        spent.append(time.perf_counter() - start)
    return {
        "name": "tfidf",
        "kind": f"TF-IDF + {'logistic' if classes else 'ridge'} regression",
        "runtime": "scikit-learn",
        "precision": "fp64",
        "logits": logits,
        "metrics": data.task.metrics(logits, data.test.known_labels),
        "interval": data.task.intervals(logits, data.test.known_labels),
        "parameters": int(linear.coef_.size),
        "seconds": seconds,
        "latency": [entry(spent, threads=threads, batch=1, tokens="real", tokenization=True)],
    }


def _joined(split: Split) -> list[str]:
    if split.pairs is None:
        return list(split.texts)
    return [f"{text} {pair}" for text, pair in zip(split.texts, split.pairs, strict=True)]
