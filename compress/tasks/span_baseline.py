"""The cheap reader: a linear model of how each word of a context goes with the question."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compress.tasks.base import Array, Baseline
from compress.tasks.division import divided
from compress.tasks.span_labels import Gold

FEATURES = 2**18  # that the features' names are hashed into
MOST_ROWS = 3000  # that it is trained on
OTHERS = 20  # words beside the right one that a training row gives for each side
NEAR = 8  # words on either side in which words of the question count
_ASKS = re.compile(r"\b(who|whom|whose|when|where|why|which|what|how (?:many|much|long|old|far|often)|how)\b")


@dataclass(frozen=True)
class _Row:
    """A question and a context as words."""

    asks: str  # who, when, how many, …
    asked: frozenset[str]
    extents: list[tuple[int, int]]
    words: list[str]  # of the context, case folded
    shapes: list[str]
    near: Array  # (words,): how rare the words of the question near each word are, together


def linear_reader(rows: Sequence[Sequence[str]], golds: Sequence[Gold]) -> Baseline:
    """Return logistic regressions that say of each word of a context whether the answer starts, or ends, in it.

    They see the word, its shape and neighbours beside the question word, and the words of the question nearby, weighted
    by their rarity (the sliding window of Richardson et al., EMNLP 2013, as a feature). ``rows`` are questions and
    contexts.
    """
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    hasher = FeatureHasher(FEATURES, alternate_sign=False)
    rarity = _rarity([context for _, context in rows])
    generator = np.random.default_rng(0)
    chosen = [number for number, gold in enumerate(golds) if gold.answers]
    chosen = sorted(generator.permutation(chosen)[:MOST_ROWS].tolist())
    seen: list[list[dict[str, float]]] = [[], []]
    right: list[list[bool]] = [[], []]
    for number in chosen:
        row, (start, end) = _row(rarity, *rows[number]), golds[number].answers[0]
        inside = [place for place, (first, last) in enumerate(row.extents) if first < end and last > start]
        if not inside:
            continue
        for side, place in enumerate((inside[0], inside[-1])):
            others = generator.permutation(len(row.words))[:OTHERS].tolist()
            for word in dict.fromkeys([place, *others]):
                seen[side].append(dict(_features(row, word)))
                right[side].append(word == place)
    sides = []
    for examples, labels in zip(seen, right, strict=True):
        linear = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=8, tol=None, average=True, random_state=0)
        if len(set(labels)) == 2:
            linear.fit(hasher.transform(examples), labels)
            sides.append(linear)

    def logits(given: Sequence[str]) -> Array:
        found = []
        for text in given:
            row = _row(rarity, *json.loads(text))
            values = np.zeros((1 + len(row.words), 4))
            if row.words:
                values[1:, 2:] = row.extents
            if row.words and len(sides) == 2:
                features = hasher.transform([dict(_features(row, place)) for place in range(len(row.words))])
                values[1:, :2] = np.stack([linear.decision_function(features) for linear in sides], axis=1)
            found.append(values)
        whole = np.full((len(found), max(map(len, found), default=1), 4), -1.0)
        for place, values in enumerate(found):
            whole[place, : len(values)] = values
        return whole

    kind = "logistic regression on each word, its neighbours and the words of the question nearby"
    weights = int(sum(np.count_nonzero(linear.coef_) for linear in sides))
    return Baseline(kind=kind, parameters=weights, logits=logits)


def _rarity(contexts: Sequence[str]) -> dict[str, float]:
    """Return how rare words are: the logarithm of the number of contexts over those that have the word."""
    counts: Counter[str] = Counter()
    distinct = set(contexts)
    for context in distinct:
        counts.update({context[start:stop].casefold() for start, stop in divided(context)})
    return {word: math.log(1 + len(distinct) / count) for word, count in counts.items()}


def _row(rarity: dict[str, float], question: str, context: str) -> _Row:
    extents = divided(context)
    words = [context[start:stop].casefold() for start, stop in extents]
    asked = frozenset(question[start:stop].casefold() for start, stop in divided(question))
    most = max(rarity.values(), default=1.0)
    weights = np.array([rarity.get(word, most) if word in asked and word[0].isalnum() else 0.0 for word in words])
    sums, places = np.concatenate([[0.0], np.cumsum(weights)]), np.arange(len(words))
    near = sums[np.minimum(places + NEAR + 1, len(words))] - sums[np.maximum(places - NEAR, 0)]
    asks = _ASKS.search(question.casefold())
    shapes = [_shape(context[start:stop]) for start, stop in extents]
    return _Row(asks.group() if asks else "", asked, extents, words, shapes, near)


def _features(row: _Row, place: int) -> Iterator[tuple[str, float]]:
    """Yield what is known of a word: itself and its neighbours, beside the question word, and the question nearby."""
    most = max(float(row.near.max()), 1e-9)
    yield "near", 4 * float(row.near[place]) / most
    yield "asked", float(row.words[place] in row.asked)
    for step in (-2, -1, 0, 1, 2):
        there = 0 <= place + step < len(row.words)
        word, shape = (row.words[place + step], row.shapes[place + step]) if there else ("", "")
        yield f"{step} {word}", 1.0
        yield f"{step} shape {shape} {row.asks}", 1.0
        yield f"{step} in question", float(there and word in row.asked)


def _shape(word: str) -> str:
    """Return a word with letters as X and x, digits as 9, each run of one kind once: "Xx9"."""
    shape = ""
    for sign in word:
        kind = "X" if sign.isupper() else "x" if sign.isalpha() else "9" if sign.isdigit() else sign
        shape += "" if shape[-1:] == kind else kind
    return shape[:8]
