"""Choose rows: cut a split in two, or take a sample; seeded and stratified, without files or messages."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

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


def strata_of(classes: Sequence[Hashable]) -> list[Array]:
    """Return the positions of each class, classes in order of first appearance."""
    members: dict[Hashable, list[int]] = {}
    for index, name in enumerate(classes):
        members.setdefault(name, []).append(index)
    return [np.asarray(positions) for positions in members.values()]


def sample(classes: Sequence[Hashable], rows: int, seed: int) -> Array:
    """Return ``rows`` positions, with classes in the same proportions as overall, in ascending order."""
    generator = np.random.default_rng(seed)
    strata = strata_of(classes)
    wanted = shares_of([len(stratum) for stratum in strata], rows)
    chosen = [generator.permutation(stratum)[:number] for stratum, number in zip(strata, wanted, strict=True)]
    return np.sort(np.concatenate(chosen))


def cut(keys: Sequence[str], classes: Sequence[Hashable], rows: int, seed: int) -> tuple[Array, Array]:
    """Return (positions that stay, positions cut off), both ascending; about ``rows`` are cut off.

    Rows with the same key stay together and count for the class of the first one. No class
    is cut off entirely: one key of each stays.
    """
    generator = np.random.default_rng(seed)
    groups = strata_of(keys)
    strata = strata_of([classes[group[0]] for group in groups])
    sizes = [sum(len(groups[g]) for g in stratum) for stratum in strata]
    off: list[Array] = []
    for stratum, wanted in zip(strata, shares_of(sizes, rows), strict=True):
        taken, left = 0, len(stratum)
        for index in generator.permutation(stratum):
            group = groups[index]
            if left > 1 and taken + len(group) <= wanted:
                off.append(group)
                taken, left = taken + len(group), left - 1
    gone = np.sort(np.concatenate(off)) if off else np.empty(0, np.int64)
    return np.setdiff1d(np.arange(len(keys)), gone), gone
