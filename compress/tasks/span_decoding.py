"""From logits of starts and ends to spans of the context.

Where rows are evaluated, logits are (rows, positions, 4): those of the start and of the end, then the characters of the
context that the position stands for, the first and the one behind the last. A row's windows follow one another. Each
begins with the position that stands for no answer, characters (0, 0); behind a row's last position they are -1. Whoever
has them needs neither tokens nor texts to find the spans, and models with other tokens can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.tasks.base import Array

MOST_TOKENS = 30  # of an answer, as in the official baselines


@dataclass(frozen=True)
class BestSpans:
    """The best span of each row, and what speaks for none; sums of two logits, (rows,) each."""

    spans: Array  # (rows, 2): the first character, and the one behind the last; -1 where the context has no token
    score: Array  # -inf where the context has no token
    none: Array  # of no answer: the least of the row's windows, as in the official baseline of SQuAD 2.0


def windows_of(logits: Array) -> Array:
    """Return the number of the window that each position belongs to (rows, positions), from 1."""
    numbers: Array = (_is_none(logits)).cumsum(1)
    return numbers


def _is_none(logits: Array) -> Array:
    there: Array = (logits[:, :, 2] == 0) & (logits[:, :, 3] == 0)
    return there


def _by_length(logits: Array) -> tuple[Array, Array, Array]:
    """Return the starts' and the ends' logits, -inf where no answer starts or ends, and the windows."""
    real = logits[:, :, 3] > logits[:, :, 2]
    starts, ends = (np.where(real, logits[:, :, side].astype(np.float64), -np.inf) for side in (0, 1))
    return starts, ends, windows_of(logits)


def best(logits: Array) -> BestSpans:
    """Return the best span of each row: the highest sum of both logits within a window, at most `MOST_TOKENS` long."""
    rows, positions = logits.shape[:2]
    starts, ends, windows = _by_length(logits)
    score = np.full(rows, -np.inf)
    spans = np.full((rows, 2), -1, dtype=np.int64)
    for longer in range(min(MOST_TOKENS, positions)):
        stop = positions - longer
        sums = starts[:, :stop] + ends[:, longer:]
        if longer:
            sums[windows[:, :stop] != windows[:, longer:]] = -np.inf
        place = sums.argmax(1)
        found = np.take_along_axis(sums, place[:, None], 1)[:, 0]
        better = np.flatnonzero(found > score)
        score[better] = found[better]
        spans[better, 0] = logits[better, place[better], 2]
        spans[better, 1] = logits[better, place[better] + longer, 3]
    sums = np.where(_is_none(logits), logits[:, :, 0].astype(np.float64) + logits[:, :, 1], np.inf)
    return BestSpans(spans, score, sums.min(1, initial=np.inf))


def n_best(logits: Array, count: int) -> list[tuple[int, int, float]]:
    """Return the ``count`` best spans of one row, logits (positions, 4): characters and the sum of both logits."""
    starts, ends, windows = (values[0] for values in _by_length(logits[None]))
    found: dict[tuple[int, int], float] = {}
    for longer in range(min(MOST_TOKENS, len(starts))):
        stop = len(starts) - longer
        sums = np.where(windows[:stop] == windows[longer:], starts[:stop] + ends[longer:], -np.inf)
        for place in np.argsort(-sums, kind="stable")[:count]:
            if np.isfinite(sums[place]):
                span = int(logits[place, 2]), int(logits[place + longer, 3])
                found[span] = max(found.get(span, -np.inf), float(sums[place]))
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [(*span, score) for span, score in ranked[:count]]
