"""A question's context and the answers in it: as a label in words, and as an array that later needs no texts.

Answers are compared as texts, and whoever compares them has only logits and encoded labels; so labels hold the context.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from compress.tasks.base import Array
from compress.tasks.functions import UNLABELLED

START, END = 1, 2
"""Bits of a token's label: whether the answer starts, and whether it ends in it. 0 for other tokens of a window."""

_ANSWERS, _CONTEXT = "answers", "context"


@dataclass(frozen=True)
class Gold:
    """A context and the answers in it, each by its characters: the first, and the one behind the last."""

    context: str
    answers: tuple[tuple[int, int], ...]  # none: the question cannot be answered from the context

    @property
    def texts(self) -> tuple[str, ...]:
        """The answers' texts."""
        return tuple(self.context[start:end] for start, end in self.answers)


def written(gold: Gold) -> str:
    """Return it as the label of a row."""
    return json.dumps({_ANSWERS: gold.answers, _CONTEXT: gold.context}, ensure_ascii=False)


def read(label: str) -> Gold | None:
    """Return what a row's label says; None for a label that is not `written`."""
    if not label.startswith('{"' + _ANSWERS):
        return None
    try:
        value = json.loads(label)
        return Gold(value[_CONTEXT], tuple((int(start), int(end)) for start, end in value[_ANSWERS]))
    except (ValueError, TypeError, KeyError):
        return None


def packed(gold: Gold) -> list[int]:
    """Return it as whole numbers: how many answers, their characters, the bytes of the context, and these by fours."""
    content = gold.context.encode("utf-8", "surrogatepass")
    numbers = np.frombuffer(content + bytes(-len(content) % 4), dtype="<i4")
    flat = [place for answer in gold.answers for place in answer]
    return [len(gold.answers), *flat, len(content), *numbers.tolist()]


def answers_in(label: Array) -> Array | None:
    """Return the answers (answers, 2) of a `packed` label; None for a row without a label."""
    count = int(label[0]) if len(label) else UNLABELLED
    return None if count < 0 else label[1 : 1 + 2 * count].reshape(count, 2)


def unpacked(label: Array) -> Gold | None:
    """Return what was `packed`; None for a row without a label."""
    answers = answers_in(label)
    if answers is None:
        return None
    size, content = int(label[1 + answers.size]), label[2 + answers.size :]
    text = _decoded(np.ascontiguousarray(content[: -(-size // 4)], dtype="<i4").tobytes()[:size])
    return Gold(text, tuple((int(start), int(end)) for start, end in answers))


@lru_cache(maxsize=4096)
def _decoded(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")


def marks(answers: Array | None, extents: Array) -> Array:
    """Return the label of each token of a window (tokens,): where the first answer starts and ends, as bits.

    ``extents`` (tokens, 2) are the characters of each token of the context, (0, 0) of the one that stands for no
    answer, and -1 of all others, whose label is `UNLABELLED`. Where the window does not hold the whole answer, or there
    is none, the token that stands for no answer is both.
    """
    first, behind = extents.T
    found = np.where(first >= 0, 0, UNLABELLED).astype(np.int64)
    if answers is None:
        return np.full_like(found, UNLABELLED)
    if len(answers):
        real = behind > first
        start, end = answers[0]
        starts, ends = np.flatnonzero(real & (behind > start)), np.flatnonzero(real & (first >= 0) & (first < end))
        whole = len(starts) and len(ends) and first[real].min() <= start and behind[real].max() >= end
        if whole and starts[0] <= ends[-1]:
            found[starts[0]] |= START
            found[ends[-1]] |= END
            return found
    found[np.flatnonzero((first == 0) & (behind == 0))[:1]] = START | END
    return found


def golds(labels: Array) -> Iterator[Gold]:
    """Yield the context and answers of labelled rows; without answers for a row without a label."""
    for label in labels:
        yield unpacked(label) or Gold("", ())


def filled(codes: Sequence[Sequence[int]]) -> Array:
    """Return `packed` labels as one array (rows, numbers), `UNLABELLED` behind the last of a row."""
    made = np.full((len(codes), max(map(len, codes), default=1)), UNLABELLED, dtype=np.int32)
    for row, own in enumerate(codes):
        made[row, : len(own)] = own
    return made
