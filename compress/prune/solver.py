"""The shape that keeps most within a budget: exact dynamic programming, a layer at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.tasks.base import Array

PARTS = 10_000  # equal parts that a budget is divided into


def solve(costs: Sequence[Sequence[float]], errors: Sequence[Sequence[float]], budget: float) -> list[int] | None:
    """Return the option of each layer whose errors have the least sum, of all whose costs stay within ``budget``.

    A layer's first option leaves it out; at least one layer must not. As SPDY (Frantar & Alistarh,
    arXiv:2201.13096) and ZipLM (arXiv:2302.04089) do, costs are counted in equal parts of the budget, rounded
    up, so the budget holds exactly. None where nothing fits.
    """
    if budget <= 0:
        return None
    parts = [[int(np.ceil(cost / budget * PARTS - 1e-9)) for cost in layer] for layer in costs]
    return solve_whole(parts, errors, PARTS)


def solve_whole(costs: Sequence[Sequence[int]], errors: Sequence[Sequence[float]], budget: int) -> list[int] | None:
    """Return what `solve` does, for whole numbers."""
    # best[kept][b]: the least error of the layers so far for at most b; kept: whether one of them stays
    best = np.full((2, budget + 1), np.inf)
    best[0] = 0.0
    steps: list[tuple[Array, Array]] = []  # the option taken, and whether a layer stayed before it
    for layer, (own, lost) in enumerate(zip(costs, errors, strict=True)):
        after = np.full_like(best, np.inf)
        option, before = np.zeros((2, budget + 1), np.int32), np.zeros((2, budget + 1), bool)
        for number, (cost, error) in enumerate(zip(own, lost, strict=True)):
            for kept in (0, 1) if layer else (0,):
                if cost > budget:
                    continue
                now = 1 if kept or number else 0
                total = best[kept, : budget + 1 - cost] + error
                better = total < after[now, cost:]
                after[now, cost:][better] = total[better]
                option[now, cost:][better] = number
                before[now, cost:][better] = bool(kept)
        best = after
        steps.append((option, before))
    if not np.isfinite(best[1, budget]):
        return None
    chosen, left, kept = [], budget, 1
    for (option, before), own in zip(reversed(steps), reversed(costs), strict=True):
        number = int(option[kept, left])
        kept, left = int(before[kept, left]), left - own[number]
        chosen.append(number)
    return chosen[::-1]
