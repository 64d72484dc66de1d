"""Exact match and F1 of answers, as the official evaluation of SQuAD 2.0 has them (Rajpurkar et al., 1806.03822)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from compress.tasks.base import Array

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@lru_cache(maxsize=65536)
def normalized(text: str) -> str:
    """Return a text in lower case without ASCII punctuation, English articles and needless white space."""
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact(answer: str, gold: str) -> float:
    """Return 1 where both are the same after `normalized`, else 0."""
    return float(normalized(answer) == normalized(gold))


def f1(answer: str, gold: str) -> float:
    """Return the F1 of the words of both after `normalized`; where one has none, 1 if both have none, else 0."""
    ours, theirs = normalized(answer).split(), normalized(gold).split()
    if not ours or not theirs:
        return float(ours == theirs)
    same = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * same / (len(ours) + len(theirs))


def scores(answer: str, golds: Sequence[str]) -> tuple[float, float]:
    """Return exact match and F1 of an answer against the best of several; "" stands for no answer, on both sides."""
    asked = [gold for gold in golds if normalized(gold)] or [""]
    return max(exact(answer, gold) for gold in asked), max(f1(answer, gold) for gold in asked)


def of_rows(answers: Sequence[str], golds: Sequence[Sequence[str]]) -> Array:
    """Return `scores` of each row (rows, 2)."""
    return np.array([scores(*row) for row in zip(answers, golds, strict=True)], dtype=np.float64).reshape(-1, 2)
