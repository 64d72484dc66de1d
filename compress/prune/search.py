"""From what sizes cost and what they lose to the shape that loses least."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

from compress.progress import progress
from compress.prune.costs import GONE, Costs, Shape
from compress.prune.sensitivity import Lost
from compress.prune.solver import solve
from compress.tasks.base import Array

Choice = TypeVar("Choice", bound=Hashable)

SPREAD = 0.5  # of the logarithm of a changed weight
SHARE = 0.25  # of the weights that are changed in a try


def best_shape(
    costs: Costs,
    whole: Shape,
    lost: Sequence[Lost],
    budget: float,
    distance: Callable[[Shape], float],
    tries: int,
    seed: int,
) -> tuple[Shape, float] | None:
    """Return the shape of a model, now ``whole``, that loses least within ``budget``, and its distance.

    The solver adds up what the layers lose one by one. What they lose together is another matter: so, as in
    ZipLM's structured SPDY search (arXiv:2302.04089, arXiv:2201.13096), what each layer's heads and units lose
    is weighted, the solver asked, the shape measured, and the weights that gave the best one changed again at
    random, ``tries`` times. None where nothing fits.
    """
    options = [costs.sizes(*size) for size in whole]
    prices = [[costs.of_layer(*size) for size in layer] for layer in options]

    def solved(weights: Array) -> Shape | None:
        errors = [_errors(sizes, layer, *pair) for sizes, layer, pair in zip(options, lost, weights, strict=True)]
        chosen = solve(prices, errors, budget - costs.rest)
        return None if chosen is None else tuple(sizes[i] for sizes, i in zip(options, chosen, strict=True))

    return best_choice(solved, (len(whole), 2), distance, tries, seed, unit="shape")


def best_choice(
    solved: Callable[[Array], Choice | None],
    parts: tuple[int, ...],
    distance: Callable[[Choice], float],
    tries: int,
    seed: int,
    *,
    unit: str,
) -> tuple[Choice, float] | None:
    """Return the choice of least distance, and its distance, among those that ``solved`` makes of different weights.

    ``solved`` weights the losses of ``parts``; ``unit`` is what a choice is called on the screen.
    """
    weights = np.ones(parts)
    best = solved(weights)
    if best is None:
        return None
    known = {best: distance(best)}
    generator = np.random.default_rng(seed)
    for _ in progress(range(tries), title="search", unit=unit):
        changed = generator.random(weights.shape) < SHARE
        other = weights * np.exp(generator.normal(0, SPREAD, weights.shape) * changed)
        found = solved(other)
        if found is None or found in known:
            continue
        known[found] = distance(found)
        if known[found] < known[best]:
            best, weights = found, other
    return best, known[best]


def _errors(sizes: Sequence[tuple[int, int]], lost: Lost, heads: float, units: float) -> list[float]:
    """Return what each size of a layer loses, its heads' and its units' share weighted."""
    return [
        lost.gone * (heads + units) / 2 if size == GONE else heads * lost.heads[size[0]] + units * lost.units[size[1]]
        for size in sizes
    ]
