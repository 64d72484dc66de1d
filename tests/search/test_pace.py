"""What a search's trainings will take, and what of its time is spoken for: no clock is read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compress.benchmark.stage import Benchmark
from compress.search.candidates import Candidate, Trial
from compress.search.pace import CycleTimes, Ending, Measuring
from compress.student.static import Static


def trial(name: str, way: str = "mse", rows: str = "given", rate: float = 1e-3) -> Trial:
    return Trial(Candidate(name, Static(), 0, (1e-4, 1e-2), 1e-3), way, rate, rows)


def pace() -> CycleTimes:
    """Return that of a small and a large candidate, of 100 labelled rows and as many others."""
    return CycleTimes({"small": 1.0, "large": 4.0, "middle": 2.0}, 100, 200)


def test_nothing_is_told_of_a_training_before_any_is_done() -> None:
    assert pace().whole(trial("small"), 3) == 0


def test_a_cycle_takes_what_the_same_one_took_whatever_its_learning_rate() -> None:
    known = pace()
    known.note(trial("small"), [9.0, 5.0])
    assert known.of(trial("small", rate=5e-3), [1]) == 9
    assert known.whole(trial("small"), 4) == 9 + 3 * 5
    known.note(trial("small"), [7.0])
    assert known.whole(trial("small"), 2) == 12


def test_another_training_takes_more_by_latency_passes_and_rows() -> None:
    known = pace()
    known.note(trial("middle"), [5.0, 5.0])
    assert known.of(trial("large"), [1]) == pytest.approx(10)
    assert known.of(trial("large", "layers_first"), [1, 2]) == pytest.approx(2 * 10 + 10)
    assert known.of(trial("middle", rows="perturbed"), [1]) == pytest.approx(5 * (200 + 4 * 100) / 200)
    assert known.of(trial("small"), [1]) == 5  # how much of it does not depend on the work is not known yet


def test_what_every_training_takes_is_told_from_what_more_work_adds() -> None:
    known = pace()
    known.note(trial("small"), [5.0])
    known.note(trial("middle"), [7.0])
    assert known.of(trial("large"), [1]) == pytest.approx(3 + 2 * 4)
    known.note(trial("large", "soft"), [3.0])  # less than the smaller ones: no work takes less than none
    assert 3 <= known.of(trial("large"), [1]) <= 7


def test_what_comes_after_the_trials_counts_the_largest_finalists_the_twin_and_the_run() -> None:
    known = pace()
    for name, seconds in (("small", 1.0), ("middle", 2.0), ("large", 4.0)):
        known.note(trial(name), [seconds, seconds])
    ending = Ending(known, finalists=2, seeds=3, twin=True, at_once=1, timing=0.5, run=30.0)
    best = [(trial("small"), 2), (trial("large"), 2), (trial("middle"), 1)]
    assert ending.without_finals(best) == 8 + 0.5 * 4 + 30
    assert ending.seconds(best) == 2 * (8 + 2) + ending.without_finals(best)
    assert replace(ending, at_once=2, twin=False).seconds(best) == (8 + 2) + 0.5 * 4 + 30
    assert ending.seconds([]) == 0.5 + 30


def test_measuring_takes_turns_until_the_fastest_has_had_its_calls_or_the_slowest_its_seconds() -> None:
    bench = Benchmark(rows=50, batches=[], tokens=[], seconds=2.0)
    slow, fast = {"eager": 20.0, "onnx": 10.0}, {"onnx": 1.0}
    alone = Measuring(bench, slow, fast, 20.0)
    assert alone.seconds(100) == pytest.approx((50 + 100) * (20 + 10 + 1 + 1) / 1000)
    grid = Measuring(replace(bench, batches=[1], tokens=[40]), slow, fast, 20.0)
    assert grid.seconds(100) - alone.seconds(100) == pytest.approx(100 * 2 * (10 + 10 + 1 + 1) / 1000)
    long = Measuring(replace(bench, batches=[100], tokens=[40]), slow, fast, 20.0)
    assert long.seconds(100) - alone.seconds(100) == pytest.approx(2 / 0.2 * 200 * (10 + 10 + 1 + 1) / 1000)
