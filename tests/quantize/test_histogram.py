"""Histograms that hold no values, against all values at once."""

from __future__ import annotations

import numpy as np
import pytest

from compress.quantize.histogram import Histogram
from compress.tasks.base import Array


def in_parts(values: Array, parts: int, bins: int = 4096) -> Histogram:
    found = Histogram(bins)
    for part in np.array_split(values, parts):
        found.add(part)
    return found


def activations(rows: int = 20_000, seed: int = 0) -> Array:
    """Return values of a sharp middle and a long upper tail, as after GELU."""
    generator = np.random.default_rng(seed)
    tail = np.exp(generator.normal(0, 1.2, rows // 10))
    return np.concatenate([generator.normal(-0.1, 0.05, rows), tail]).astype(np.float32)


@pytest.mark.parametrize("order", ["as they come", "rising", "falling", "outlier first"])
def test_counts_are_those_of_all_values_at_once_whatever_came_first(order: str) -> None:
    values = activations()
    values = {
        "as they come": values,
        "rising": np.sort(values),
        "falling": np.sort(values)[::-1],
        "outlier first": np.roll(values, 1 - int(values.argmax())),
    }[order]
    found = in_parts(values, 37)
    counts, first = found.filled()
    edges = (np.arange(first, first + len(counts) + 1)) * found.width
    assert np.array_equal(counts, np.histogram(values, edges)[0])
    assert counts.sum() == len(values)
    assert (found.low, found.high) == (values.min(), values.max())
    assert len(counts) >= 2048  # resolution does not wear out


def test_its_memory_does_not_grow_with_the_rows() -> None:
    few, many = in_parts(activations(50), 5), in_parts(activations(100_000), 100)
    assert few.counts.nbytes == many.counts.nbytes == 4096 * 8
    assert {name for name, value in vars(many).items() if isinstance(value, np.ndarray)} == {"counts"}


@pytest.mark.parametrize(
    "values", [[0.0], [5.0] * 7, [-3e38, 3e38], [1e-40, -1e-42], [0.0, 0.0, 1e30], [-2.0, -1.0]], ids=str
)
def test_odd_values_are_held_too(values: list[float]) -> None:
    given = np.array(values, np.float32)
    found = in_parts(given, len(values))
    counts, first = found.filled()
    assert counts.sum() == len(values)
    for value in given.tolist():
        place = int(np.floor(value / found.width)) - first
        assert counts[place] > 0
    folded, start = found.folded()
    assert start == 0
    assert folded.sum() == len(values)


def test_what_is_not_finite_is_refused_and_nothing_is_counted_for_nothing() -> None:
    found = Histogram()
    found.add(np.array([], np.float32))
    assert not found.counts.any()
    with pytest.raises(ValueError, match="not finite"):
        found.add(np.array([1.0, np.nan], np.float32))
