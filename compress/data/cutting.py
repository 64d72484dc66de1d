"""Choose rows: cut a split in two, or take a sample; seeded and stratified, without files or messages."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from compress.data.equal_rows import Repeats
from compress.mapped import PART, mapped, picked
from compress.tasks.base import Array


def shares_of(counts: Sequence[int], total: int) -> list[int]:
    """Divide ``total`` over strata in proportion to ``counts``, by largest remainder.

    Each stratum gets at least one if ``total`` allows it, and at most its count.
    """
    total = min(total, sum(counts))
    exact = [total * count / sum(counts) for count in counts]
    given = [int(share) for share in exact]
    for index in sorted(range(len(counts)), key=lambda i: given[i] - exact[i])[: total - sum(given)]:
        given[index] += 1
    if total >= len(counts):
        for index, share in enumerate(given):
            if share == 0:
                given[index] = 1
                given[given.index(max(given))] -= 1
    return given


def numbered(names: Sequence[Hashable] | Array) -> Array:
    """Return a number for each row (rows,), int32, that equal names share; 0 for the first of all."""
    known: dict[Hashable, int] = {}
    return np.fromiter((known.setdefault(name, len(known)) for name in names), np.int32, len(names))


def strata_of(classes: Sequence[Hashable] | Array) -> list[Array]:
    """Return the positions of each class, classes in order of first appearance."""
    numbers = numbered(classes)
    order = mapped(np.argsort(numbers, kind="stable"))
    return np.split(order, np.cumsum(np.bincount(numbers))[:-1]) if len(numbers) else []


def sample(classes: Sequence[Hashable] | Array, rows: int, seed: int) -> Array:
    """Return ``rows`` positions, with classes in the same proportions as overall, in ascending order."""
    generator = np.random.default_rng(seed)
    strata = strata_of(classes)
    wanted = shares_of([len(stratum) for stratum in strata], rows)
    chosen = [generator.permutation(stratum)[:number] for stratum, number in zip(strata, wanted, strict=True)]
    return np.sort(np.concatenate(chosen))


def cut(keys: Array, classes: Sequence[Hashable] | Array, rows: int, seed: int) -> tuple[Array, Array]:
    """Return (positions that stay, positions cut off), both ascending; about ``rows`` are cut off.

    Rows with the same key, a number, stay together and count for the class of the first one. No class
    is cut off entirely: one key of each stays.
    """
    generator = np.random.default_rng(seed)
    repeats = Repeats.of(keys)
    leaders = repeats.leaders()
    counts = picked(repeats.count, leaders)
    strata = strata_of(numbered(classes)[leaders])
    sizes = [int(counts[stratum].sum()) for stratum in strata]
    gone = np.zeros(len(keys), dtype=np.bool_)
    for stratum, wanted in zip(strata, shares_of(sizes, rows), strict=True):
        gone[leaders[_fitting(generator.permutation(stratum), counts, wanted)]] = True
    for followers, first in repeats.followers():
        gone[followers] = gone[first]
    return np.flatnonzero(~gone), np.flatnonzero(gone)


def _fitting(order: Array, counts: Array, wanted: int) -> Array:
    """Return each of ``order`` in turn that still fits into ``wanted`` rows, but never all; ``counts`` by place."""
    taken, left = 0, len(order)
    chosen: list[int] = []
    for start in range(0, len(order), PART):
        for place, count in enumerate(counts[order[start : start + PART]].tolist(), start):
            if taken == wanted or left == 1:
                return order[chosen]
            if taken + count <= wanted:
                chosen.append(place)
                taken, left = taken + count, left - 1
    return order[chosen]
