"""Paired tests keep their promises: few false alarms, enough power, intervals that hold the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, ttest_1samp

from compress.tasks.base import Array, Task
from compress.tasks.classification import Classification
from compress.tasks.paired import Difference, of_resampled_rows, of_right_answers, of_seeds, tango
from compress.tasks.regression import Regression

ROWS = 2000
RUNS = 400


def drawn(differing: float, gain: float, seed: int) -> Difference:
    """Compare two models that differ on a share of the rows, of which the first gains ``gain`` more than it loses."""
    draw = np.random.default_rng(seed).random(ROWS)
    won, lost = draw < (differing + gain) / 2, (draw >= (differing + gain) / 2) & (draw < differing)
    return of_right_answers("accuracy", ~lost, ~won)


@pytest.mark.parametrize("differing", [0.04, 0.28])
def test_where_nothing_differs_at_most_one_in_twenty_runs_says_so(differing: float) -> None:
    alarms = sum(drawn(differing, 0.0, seed).clear for seed in range(RUNS))
    assert alarms <= binom.ppf(0.95, RUNS, 0.05)


def test_a_loss_of_a_point_and_a_half_is_found_nine_times_in_ten() -> None:
    found = [drawn(0.04, -0.015, seed) for seed in range(RUNS)]
    assert 0.86 <= np.mean([difference.clear for difference in found]) <= 0.96
    assert all(difference.value < 0 for difference in found if difference.clear)


@pytest.mark.parametrize(("differing", "gain"), [(0.04, 0.0), (0.04, -0.015), (0.3, 0.2)])
def test_the_interval_holds_the_truth_and_never_contradicts_the_test(differing: float, gain: float) -> None:
    found = [drawn(differing, gain, seed) for seed in range(RUNS)]
    assert np.mean([difference.low <= gain <= difference.high for difference in found]) >= 0.93
    assert all(difference.clear == (difference.low > 0 or difference.high < 0) for difference in found)


def test_p_is_that_of_the_exact_test() -> None:
    right, other = np.ones(100, bool), np.ones(100, bool)
    other[:6] = False
    found = of_right_answers("accuracy", right, other)
    assert (found.value, found.p) == (pytest.approx(0.06), pytest.approx(2 / 2**6))
    assert found.clear
    other[0] = True
    assert not of_right_answers("accuracy", right, other).clear  # 2 / 2**5
    assert of_right_answers("accuracy", right, right).p == 1.0


def test_the_score_interval_is_tangos() -> None:
    # the score statistic is 1.96 at both ends; with no differing row the ends are z² / (rows + z²)
    square = 1.959964**2
    assert tango(0, 0, 50) == (pytest.approx(-square / (50 + square)), pytest.approx(square / (50 + square)))
    low, high = tango(7, 1, 50)
    assert (low, high) == (pytest.approx(0.0116, abs=1e-4), pytest.approx(0.2466, abs=1e-4))
    assert tango(1, 7, 50) == (pytest.approx(-high), pytest.approx(-low))
    assert tango(50, 0, 50)[1] == 1.0
    assert tango(0, 0, 0) == (-1.0, 1.0)


def answers(seeds: int, differing: float, alike: float, spread: float, gain: float, seed: int) -> NDArray[np.int64]:
    """Return by seed and row (seeds, rows) by how much the first way's answer is better: 1, 0 or -1.

    A share ``differing`` of the answers differs, of which ``alike`` in every seed; the seeds' gains have the standard
    deviation ``spread`` around ``gain``.
    """
    generator = np.random.default_rng(seed)
    signs, draw = generator.choice([-1, 1], FEW_ROWS), generator.random(FEW_ROWS)
    found = []
    for of_seed in gain + spread * generator.standard_normal(seeds):
        own = generator.random(FEW_ROWS) < differing * (1 - alike)
        row = np.where(draw < differing * alike, signs, np.where(own, generator.choice([-1, 1], FEW_ROWS), 0))
        gained = (row == 0) & (generator.random(FEW_ROWS) < abs(of_seed) / (row == 0).mean())
        found.append(np.where(gained, int(np.sign(of_seed)), row))
    return np.array(found)


def compared(better: NDArray[np.int64]) -> Difference:
    return of_seeds("accuracy", lambda rows: better[:, rows].mean(1), better.shape[1], samples=100)


FEW_ROWS = 872
WORLDS = [(0.04, 0.8, 0.0), (0.12, 0.8, 0.003), (0.12, 0.2, 0.01), (0.04, 0.2, 0.03)]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("differing", "alike", "spread"), WORLDS)
def test_over_seeds_about_one_in_twenty_comparisons_of_equals_says_that_they_differ(
    seeds: int, differing: float, alike: float, spread: float
) -> None:
    alarms = sum(compared(answers(seeds, differing, alike, spread, 0.0, seed)).clear for seed in range(RUNS))
    assert alarms / RUNS <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "least"), [(3, 0.45), (5, 0.55)])
def test_over_seeds_a_gain_of_a_point_and_a_half_is_found(seeds: int, least: float) -> None:
    found = [compared(answers(seeds, 0.04, 0.8, 0.003, 0.015, seed)) for seed in range(RUNS)]
    assert np.mean([difference.clear for difference in found]) >= least
    assert all(difference.value > 0 for difference in found if difference.clear)
    assert np.mean([difference.low <= 0.015 <= difference.high for difference in found]) >= 0.92


def test_where_rows_do_not_matter_seeds_are_compared_by_students_t() -> None:
    gains = np.array([0.01, 0.0075, 0.0025])
    found = of_seeds("accuracy", lambda rows: gains, 872)
    expected = ttest_1samp(gains, 0.0)
    assert (found.value, found.p) == (pytest.approx(0.02 / 3), pytest.approx(expected.pvalue))
    low, high = expected.confidence_interval()
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_where_seeds_do_not_matter_the_interval_is_that_of_the_rows() -> None:
    better = np.random.default_rng(0).choice([-1, 0, 0, 0, 1], FEW_ROWS)
    found = of_seeds("accuracy", lambda rows: np.full(3, better[rows].mean()), FEW_ROWS)
    half = 1.96 * better.std() / np.sqrt(FEW_ROWS)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.value == pytest.approx(better.mean())


def test_a_task_compares_over_seeds_what_it_compares_within_one() -> None:
    generator, task = np.random.default_rng(0), Classification(("a", "b"))
    labels = generator.integers(0, 2, 300)
    ways = [[np.eye(2)[np.where(generator.random(300) < share, labels, 1 - labels)] for _ in range(3)]
            for share in (0.9, 0.7)]  # fmt: skip
    found = task.difference_over_seeds(*ways, labels)
    single = [task.difference(ours, theirs, labels).value for ours, theirs in zip(*ways, strict=True)]
    assert (found.metric, found.value) == ("accuracy", pytest.approx(np.mean(single)))
    assert found.clear
    same = task.difference_over_seeds(ways[0], ways[0], labels)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="one seed"):
        task.difference_over_seeds(ways[0][:1], ways[1][:1], labels)


def test_scores_are_compared_by_the_rows_that_they_share() -> None:
    task, generator = Regression(0.0, 5.0), np.random.default_rng(0)
    labels = generator.normal(size=500).astype(np.float32)
    good, bad = (labels + generator.normal(size=500) * noise for noise in (0.3, 0.6))
    found = task.difference(good[:, None], bad[:, None], labels)
    result = [task.metrics(side[:, None], labels)["pearson"] for side in (good, bad)]
    assert found.value == pytest.approx(result[0] - result[1], abs=1e-6)
    assert found.clear
    assert found.value > 0
    same = task.difference(good[:, None], good[:, None], labels)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_constant_scores_are_worth_nothing_and_do_not_warn() -> None:
    task, labels = Regression(0.0, 1.0), np.linspace(0, 1, 30)
    found = task.difference(np.ones((30, 1)), labels[:, None], labels)
    assert found.value == pytest.approx(-1.0)


def test_both_sides_are_compared_from_either_side_alike_and_the_same_each_time() -> None:
    columns = np.random.default_rng(0).normal(size=(40, 1))
    first, again = (of_resampled_rows("mean", columns, lambda sums: sums[:, 0]) for _ in range(2))
    assert first == again
    reverse = of_resampled_rows("mean", -columns, lambda sums: sums[:, 0])
    turned = replace(first, value=-first.value, low=pytest.approx(-first.high), high=pytest.approx(-first.low))
    assert reverse == replace(turned, floor=reverse.floor)  # the floor is of one side
    assert reverse.floor >= reverse.low
    assert 0 < first.p <= 1


def test_the_main_metric_is_what_is_compared_by_itself() -> None:
    labels = np.array([0, 1, 1, 0])
    assert Classification(("a", "b")).difference(np.eye(2)[labels], np.eye(2)[labels], labels).metric == "accuracy"
    scores = labels[:, None].astype(float)
    assert Regression(0.0, 1.0).difference(scores, scores, labels.astype(float)).metric == "pearson"


def naive(task: Task, logits: Array, others: Array, labels: Array) -> list[float]:
    """Return differences of the metric that decides in 400 samples of rows, one after the other."""
    generator, found = np.random.default_rng(1), []
    for _ in range(400):
        rows = generator.integers(0, len(labels), len(labels))
        sides = [task.metrics(side[rows], labels[rows])[task.main_metric] for side in (logits, others)]
        found.append(sides[0] - sides[1])
    return found


@pytest.mark.parametrize("metric", ["macro_f1", "mcc", "balanced_accuracy", "f1:b"])
def test_any_metric_of_classes_is_compared_on_resampled_rows(metric: str) -> None:
    generator = np.random.default_rng(3)
    labels = generator.choice(3, 150, p=[0.7, 0.2, 0.1])
    guesses = generator.integers(0, 3, 150)
    sides = [np.eye(3)[np.where(generator.random(150) < right, labels, guesses)] for right in (0.8, 0.6)]
    task = Classification(("a", "b", "c")).judged_by(metric)
    found, expected = task.difference(*sides, labels), naive(task, *sides, labels)
    ours, theirs = (task.metrics(side, labels)[metric] for side in sides)
    assert (found.metric, found.value) == (metric, pytest.approx(ours - theirs))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])), abs=0.03)
    assert found.clear == (found.low > 0)
    low, high = task.intervals(sides[0], labels)[metric]
    assert low < ours < high
    same = task.difference(sides[0], sides[0], labels)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("metric", ["spearman", "r2"])
def test_any_metric_of_scores_is_compared_on_resampled_rows(metric: str) -> None:
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 6, 120).astype(np.float32)  # with ties
    sides = [(labels + generator.normal(size=120) * noise).round(1)[:, None] for noise in (0.5, 1.0)]
    task = Regression(0.0, 5.0).judged_by(metric)
    found, expected = task.difference(*sides, labels), naive(task, *sides, labels)
    ours, theirs = (task.metrics(side, labels)[metric] for side in sides)
    assert (found.metric, found.value) == (metric, pytest.approx(ours - theirs, abs=1e-6))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])), abs=0.04)
    constant = task.difference(np.zeros((120, 1)), sides[0], labels)
    assert constant.value == pytest.approx(task.metrics(np.zeros((120, 1)), labels)[metric] - ours, abs=1e-6)
