"""Ranges from a histogram, against naive calculations over all values at once."""

from __future__ import annotations

import numpy as np
import pytest

from compress.quantize.histogram import Histogram
from compress.quantize.ranges import entropy_range, kl_divergence, percentile_range, squared_error_range
from compress.tasks.base import Array
from tests.quantize.test_histogram import activations, in_parts


def both_sides(seed: int = 1) -> Array:
    """Return values around zero with a few that lie far off."""
    generator = np.random.default_rng(seed)
    values = generator.standard_t(3, 30_000).astype(np.float32)
    return np.concatenate([values, np.float32([-90, 60])])


CASES = {"one tail": activations(), "two tails": both_sides(), "positive": np.abs(both_sides(2))}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("percentile", [95.0, 99.0, 99.9, 100.0])
def test_a_percentile_is_the_quantile_of_all_values(name: str, percentile: float) -> None:
    values = CASES[name]
    found = in_parts(values, 11)
    beyond = (100 - percentile) / 200
    low, high = percentile_range(found, percentile, symmetric=False)
    assert abs(low - np.quantile(values, beyond)) <= found.width + gap(values, beyond)
    assert abs(high - np.quantile(values, 1 - beyond)) <= found.width + gap(values, 1 - beyond)
    low, high = percentile_range(found, percentile, symmetric=True)
    assert low == -high
    share = percentile / 100
    assert abs(high - np.quantile(np.abs(values), share)) <= found.width + gap(np.abs(values), share)


def gap(values: Array, share: float) -> float:
    """Return the distance between the two values that a quantile lies between."""
    ordered = np.sort(values)
    place = share * (len(values) - 1)
    return float(ordered[int(np.ceil(place))] - ordered[int(np.floor(place))])


def quantized(values: Array, low: float, high: float, *, symmetric: bool) -> Array:
    """Return values as their integers stand for them, written out for each level."""
    if symmetric:
        levels = np.arange(-127, 128) * (high / 127)
    else:
        low, high = min(low, 0.0), max(high, 0.0)
        step = (high - low) / 255
        levels = (np.arange(256) - round(-low / step)) * step
    places = np.searchsorted((levels[1:] + levels[:-1]) / 2, values)
    return np.asarray(levels[places])


def error(values: Array, low: float, high: float, *, symmetric: bool) -> float:
    return float(((values - quantized(values, low, high, symmetric=symmetric)) ** 2).mean())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_least_squared_error_is_that_of_all_values(name: str, symmetric: bool) -> None:
    values = CASES[name].astype(np.float64)
    low, high = squared_error_range(in_parts(CASES[name], 5), symmetric=symmetric)
    best = float("inf")
    for threshold in np.linspace(0.01, 1, 200) * np.abs(values).max():
        ends = (-threshold, threshold) if symmetric else (max(values.min(), -threshold), min(values.max(), threshold))
        best = min(best, error(values, *ends, symmetric=symmetric))
    ours = error(values, low, high, symmetric=symmetric)
    assert ours <= 1.03 * best
    if name == "two tails":
        most = np.abs(values).max()
        assert ours < error(
            values, *((-most, most) if symmetric else (values.min(), values.max())), symmetric=symmetric
        )


def naive_divergence(counts: list[int], start: int, stop: int, levels: int) -> float:
    """Return the divergence of Migacz's talk, bin by bin."""
    reference = [float(count) for count in counts[start:stop]]
    reference[0] += sum(counts[:start])
    reference[-1] += sum(counts[stop:])
    inside = counts[start:stop]
    spread = [0.0] * len(inside)
    groups: dict[int, list[int]] = {}
    for i in range(len(inside)):
        groups.setdefault(i * levels // len(inside), []).append(i)
    for members in groups.values():
        full = [i for i in members if inside[i]]
        for i in full:
            spread[i] = sum(inside[j] for j in members) / len(full)
    total, divergence = sum(spread), 0.0
    for p, q in zip(reference, spread, strict=True):
        if p and not q:
            return float("inf")
        if p:
            divergence += p / sum(reference) * np.log((p / sum(reference)) / (q / total))
    return divergence


def test_divergence_is_the_naive_one_and_0_where_nothing_is_lost() -> None:
    generator = np.random.default_rng(3)
    counts = generator.poisson(2.0, 90)
    counts[:3] = counts[-2:] = 1
    for start, stop, levels in ((0, 90, 8), (5, 71, 8), (10, 90, 16), (0, 40, 7)):
        expected = naive_divergence(counts.tolist(), start, stop, levels)
        assert kl_divergence(counts, start, stop, levels) == pytest.approx(expected)
        assert expected > 0
    assert kl_divergence(counts, 0, 90, 90) == pytest.approx(0, abs=1e-12)
    counts[60] = 0
    assert kl_divergence(counts, 0, 61, 8) == float("inf")  # the last bin is empty inside, not outside


@pytest.mark.parametrize("symmetric", [False, True])
def test_entropy_takes_the_threshold_of_least_divergence(symmetric: bool) -> None:
    values = CASES["two tails"]
    found = in_parts(values, 3, bins=4096)
    low, high = entropy_range(found, symmetric=symmetric)
    counts, first = found.folded() if symmetric else found.filled()
    levels, last = (128 if symmetric else 256), max(-first, first + len(counts))
    costs = {}
    for threshold in range(last, 0, -max(1, last // 256)):
        start, stop = max(-threshold - first, 0), min(threshold - first, len(counts))
        if stop - start >= levels:
            costs[threshold] = naive_divergence(counts.tolist(), start, stop, levels)
    best = min(costs, key=lambda value: (costs[value], -value))
    most = np.abs(values).max() if symmetric else values.max()
    assert high == pytest.approx(min(best * found.width, most), abs=2 * found.width)
    assert low == pytest.approx(-high if symmetric else max(-best * found.width, values.min()), abs=2 * found.width)
    assert high < 60  # what lies far off is left out


def test_a_range_of_values_that_are_all_zero_is_zero() -> None:
    found = Histogram()
    found.add(np.zeros(10, np.float32))
    for way in (entropy_range, squared_error_range):
        for symmetric in (False, True):
            assert way(found, symmetric=symmetric) == (0, 0)
    assert percentile_range(found, 99, symmetric=False) == (0, 0)
