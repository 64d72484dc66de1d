"""The solver, against trying everything."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.prune.solver import solve, solve_whole

COST, ERROR = st.integers(0, 12), st.floats(0, 10).map(lambda error: round(error, 3))
LAYERS = st.lists(st.lists(st.tuples(COST, ERROR), min_size=1, max_size=4), min_size=1, max_size=4)


def best(layers: list[list[tuple[float, float]]], budget: float) -> float | None:
    """Return the least sum of errors of all choices that fit and keep a layer."""
    sums = []
    for choice in product(*(range(len(layer)) for layer in layers)):
        taken = [layer[number] for layer, number in zip(layers, choice, strict=True)]
        if any(choice) and sum(cost for cost, _ in taken) <= budget:
            sums.append(sum(error for _, error in taken))
    return min(sums, default=None)


@given(layers=LAYERS, budget=st.integers(0, 40))
def test_nothing_that_fits_loses_less(layers: list[list[tuple[int, float]]], budget: int) -> None:
    costs, errors = ([[size[part] for size in layer] for layer in layers] for part in (0, 1))
    chosen = solve_whole(costs, errors, budget)
    expected = best(layers, budget)
    if expected is None:
        assert chosen is None
        return
    assert chosen is not None
    assert any(chosen)
    taken = [layer[number] for layer, number in zip(layers, chosen, strict=True)]
    assert sum(cost for cost, _ in taken) <= budget
    assert sum(error for _, error in taken) == pytest.approx(expected)


REAL = st.lists(st.lists(st.tuples(st.floats(0, 5), ERROR), min_size=1, max_size=4), min_size=1, max_size=4)


@given(layers=REAL, budget=st.floats(0.1, 15))
def test_real_costs_stay_within_the_budget_and_lose_what_little_rounding_costs(
    layers: list[list[tuple[float, float]]], budget: float
) -> None:
    costs, errors = ([[size[part] for size in layer] for layer in layers] for part in (0, 1))
    chosen = solve(costs, errors, budget)
    tighter = best(layers, budget * (1 - 4 / 10_000))  # each of four layers is rounded up by a part at most
    if chosen is None:
        assert tighter is None
        return
    assert sum(own[number] for own, number in zip(costs, chosen, strict=True)) <= budget * (1 + 1e-9)
    lost = sum(own[number] for own, number in zip(errors, chosen, strict=True))
    assert lost >= best(layers, budget * (1 + 1e-9)) - 1e-9
    if tighter is not None:
        assert lost <= tighter + 1e-9


def test_leaving_out_all_layers_is_no_choice_however_cheap() -> None:
    assert solve_whole([[0, 5], [0, 4]], [[0.0, 9.0], [0.0, 1.0]], 10) == [0, 1]
    assert solve_whole([[0, 5], [0, 4]], [[0.0, 9.0], [0.0, 1.0]], 3) is None


def test_no_budget_fits_nothing() -> None:
    assert solve([[0.0, 1.0]], [[0.0, 0.0]], 0.0) is None
