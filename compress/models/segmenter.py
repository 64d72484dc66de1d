"""A Unigram model that cuts texts into known words as the segmenter did that found them, without that segmenter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MARGIN = 0.01  # nats by which a word is likelier than any two or more others in its place


def segmenting(counts: Mapping[str, int], special: Sequence[str], unknown: str) -> dict[str, Any]:
    """Return the Unigram model of the ``tokenizers`` package (Kudo, arXiv:1804.10959) whose pieces are words.

    ``special`` tokens come first, then the words in their order; a word's score is the logarithm of its share of all
    ``counts``. Of the ways to cut a text into words the likeliest is taken, as jieba does with its dictionary. A word
    that others could be put together to be is scored so that it stays whole where it stands alone. Characters in no
    known word become one ``unknown`` token.
    """
    scores = whole_word_scores(counts)
    vocabulary = [(token, 0.0) for token in special] + [(word, scores[word]) for word in counts]
    return {"type": "Unigram", "vocab": vocabulary, "unk_id": special.index(unknown), "byte_fallback": False}


def whole_word_scores(counts: Mapping[str, int]) -> dict[str, float]:
    """Return the logarithm of each word's share of all, or more where shorter words make it up and are likelier."""
    total = sum(counts.values())
    scores: dict[str, float] = {}
    for word in sorted(counts, key=len):
        scores[word] = max(math.log(counts[word] / total), _likeliest(word, scores) + MARGIN)
    return scores


def _likeliest(text: str, scores: Mapping[str, float]) -> float:
    """Return the score of the likeliest way to put a text together from words; minus infinity where there is none."""
    best = [0.0] + [-math.inf] * len(text)
    for end in range(1, len(text) + 1):
        best[end] = max(best[start] + scores.get(text[start:end], -math.inf) for start in range(end))
    return best[-1]
