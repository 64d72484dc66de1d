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
    """Return the pairs among texts with labels (texts, 3): row, place, score; a text without its other is left out.

    They are in the order of the first texts.
    """
    known = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels
    scored = np.flatnonzero(~np.isnan(known[:, 2]))
    starts, ends = (scored[known[scored, 1] == place] for place in (0, 1))
    order = np.argsort(known[ends, 0], kind="stable")
    ends = ends[order]
    found = np.searchsorted(known[ends, 0], known[starts, 0])
    there = np.zeros(len(starts), dtype=bool)
    inside = found < len(ends)
    there[inside] = known[ends[found[inside]], 0] == known[starts[inside], 0]
    first, second = starts[there], ends[found[there]]
    if isinstance(labels, Tensor):
        places: Any = [torch.from_numpy(side).to(labels.device) for side in (first, second)]
        return Pairs(places[0], places[1], labels[places[0], 2])
    return Pairs(first, second, known[first, 2])


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
