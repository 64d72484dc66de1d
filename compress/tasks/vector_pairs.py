"""Texts of a batch or a split that belong to the same row of data, and how near their vectors are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from compress.tasks.base import Array

Column = TypeVar("Column", Tensor, Array)

MOST_QUERIES = 2000  # texts for which the nearest is looked up
_BLOCK = 250  # of them at once


@dataclass(frozen=True)
class Pairs(Generic[Column]):
    """Rows of data with both of their texts: the places of the texts and the score, each (pairs,)."""

    first: Column
    second: Column
    scores: Column


def pairs_of(labels: Column) -> Pairs[Column]:
    """Return the pairs among texts with labels (texts, 3 or more): row, place, score.

    Each scored text at a place after 0 makes one with the text at place 0 of its row; without that, it is left out.
    They are in the order of the texts.
    """
    known = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels
    scored = np.flatnonzero(~np.isnan(known[:, 2]))
    starts, ends = scored[known[scored, 1] == 0], scored[known[scored, 1] > 0]
    starts = starts[np.argsort(known[starts, 0], kind="stable")]
    found = np.searchsorted(known[starts, 0], known[ends, 0])
    there = np.zeros(len(ends), dtype=bool)
    inside = found < len(starts)
    there[inside] = known[starts[found[inside]], 0] == known[ends[inside], 0]
    first, second = starts[found[there]], ends[there]
    if isinstance(labels, Tensor):
        places: Any = [torch.from_numpy(side).to(labels.device) for side in (first, second)]
        return Pairs(places[0], places[1], labels[places[1], 2])
    return Pairs(first, second, known[second, 2])


def cosines(vectors: Array, pairs: Pairs[Array]) -> Array:
    """Return the cosine of each pair's vectors (pairs,), fp64; 0 for a vector of zeros."""
    wide = vectors.astype(np.float64)
    first, second = wide[pairs.first], wide[pairs.second]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    found: Array = (first * second).sum(1) / np.maximum(lengths, 1e-12)
    return found


def unit(vectors: Array) -> Array:
    """Return vectors (rows, width) of length 1; those of zeros as they are."""
    found: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def same_nearest(vectors: Array, others: Array) -> float:
    """Return the share of texts whose nearest text, by the cosine, is the same on both sides (texts, width of a side).

    At most `MOST_QUERIES` texts, evenly spread, are looked up among all; 1 where there are not two texts.
    """
    if len(vectors) < 2:
        return 1.0
    queries = np.unique(np.linspace(0, len(vectors) - 1, MOST_QUERIES).astype(np.int64))
    sides, same = (unit(vectors), unit(others)), 0
    for start in range(0, len(queries), _BLOCK):
        rows = queries[start : start + _BLOCK]
        nearest = []
        for side in sides:
            found = side[rows] @ side.T
            found[np.arange(len(rows)), rows] = -np.inf  # not itself
            nearest.append(found.argmax(1))
        same += int((nearest[0] == nearest[1]).sum())
    return same / len(queries)
