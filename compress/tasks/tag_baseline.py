"""The cheap tagger: a linear model of what a word and its neighbours look like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from compress.tasks.base import Array, Baseline
from compress.tasks.division import words_of
from compress.tasks.functions import UNLABELLED

FEATURES = 2**18  # that the features' names are hashed into
MOST_WORDS = 200_000  # that it is trained on
AFFIX = 4  # characters of the longest prefix and suffix
ABSENT = -30.0  # logit of a tag that no training word has


def linear_tagger(texts: Sequence[str], labels: Array, outputs: int) -> Baseline:
    """Return logistic regression on words, shapes, affixes and neighbours, trained by stochastic gradient descent.

    ``labels`` (rows, words) are tags' numbers. Where only one tag occurs, that is the answer.
    """
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    hasher = FeatureHasher(FEATURES, input_type="string", alternate_sign=False)
    rows = [_words(text) for text in texts]
    chosen: list[Sequence[str]] = []
    tags: list[int] = []
    for words, row in zip(rows, labels, strict=True):
        for place, tag in zip(range(len(words)), row, strict=False):
            if tag != UNLABELLED and len(tags) < MOST_WORDS:
                chosen.append(list(_features(words, place)))
                tags.append(int(tag))
    present = np.unique(tags)
    linear = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=8, tol=None, average=True, random_state=0)
    if len(present) > 1:
        linear.fit(hasher.transform(chosen), tags)

    def logits(given: Sequence[str]) -> Array:
        sentences = [_words(text) for text in given]
        found = np.zeros((len(given), max(map(len, sentences), default=0), outputs))
        seen = [list(_features(words, place)) for words in sentences for place in range(len(words))]
        if not seen:
            return found
        scores = np.full((len(seen), outputs), ABSENT)
        if len(present) < 2:
            scores[:, present] = 1.0
        elif len(present) == 2:
            scores[:, present[1]] = linear.decision_function(hasher.transform(seen))
            scores[:, present[0]] = -scores[:, present[1]]
        else:
            scores[:, present] = linear.decision_function(hasher.transform(seen))
        start = 0
        for row, words in enumerate(sentences):
            found[row, : len(words)] = scores[start : start + len(words)]
            start += len(words)
        return found

    weights = int(np.count_nonzero(linear.coef_)) if len(present) > 1 else 0
    kind = "logistic regression on words, shapes, affixes and neighbours"
    return Baseline(kind=kind, parameters=weights, logits=logits)


def _words(text: str) -> list[str]:
    return [text[start:stop] for start, stop in words_of(text)]


def _features(words: Sequence[str], place: int) -> Iterator[str]:
    """Yield what is known of a word: itself, its shape, its affixes, and the two words on either side."""
    for step in (-2, -1, 0, 1, 2):
        near = words[place + step] if 0 <= place + step < len(words) else ""
        yield f"{step} {near.casefold()}"
        if abs(step) < 2:
            yield f"{step} shape {_shape(near)}"
    word = words[place].casefold()
    for size in range(1, min(AFFIX, len(word)) + 1):
        yield f"prefix {word[:size]}"
        yield f"suffix {word[-size:]}"
    if place:
        yield f"pair {words[place - 1].casefold()} {word}"


def _shape(word: str) -> str:
    """Return a word with letters as X and x, digits as 9, each run of one kind at most twice: "Xxx9"."""
    shape = ""
    for sign in word:
        kind = "X" if sign.isupper() else "x" if sign.isalpha() else "9" if sign.isdigit() else sign
        shape += "" if shape[-2:] == kind * 2 else kind
    return shape
