"""The likeliest tags that follow their scheme."""

from __future__ import annotations

import numpy as np

from compress.tasks.base import Array

NEVER = -1e9  # log-probability of a step that the scheme forbids


def likeliest(scores: Array, legal: Array) -> Array:
    """Return the path (words,) of tags with the highest sum of ``scores`` (words, tags) in which each step is legal.

    ``legal`` (tags + 1, tags + 1): which tag may follow which; row -1 is the start, column -1 the end (Viterbi, 1967).
    """
    words, tags = scores.shape
    if not words:
        return np.zeros(0, dtype=np.int64)
    steps = np.where(legal, 0.0, NEVER)
    best = scores[0] + steps[-1, :tags]
    came_from = np.zeros((words, tags), dtype=np.int64)
    for word in range(1, words):
        totals = best[:, None] + steps[:tags, :tags]
        came_from[word] = totals.argmax(0)
        best = totals.max(0) + scores[word]
    path = np.zeros(words, dtype=np.int64)
    path[-1] = int((best + steps[:tags, -1]).argmax())
    for word in range(words - 1, 0, -1):
        path[word - 1] = came_from[word, path[word]]
    return path
