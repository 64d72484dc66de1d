"""When timings are noisy, which turns are the quiet ones, and what is measured twice. All durations are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import machine
from compress.benchmark.latency import entry, quieter
from compress.runtimes.devices import CPU, Device
from compress.runtimes.noise import LEAST, Load, Turns, quietest, spread, strata
from compress.runtimes.timing import share_done, time_in_turns

EVEN = [1.0] * 80
BURST = [1.0] * 60 + [9.0] * 20  # a quarter of the calls waited for something else


def turns(load: float | None = None, cores: int = 2, sizes: list[float] | None = None) -> Turns:
    alike = strata(sizes or [1.0] * 80)
    return Turns(alike=alike, quiet=np.arange(20), load=load, cores=cores)


def test_calls_that_only_their_rows_lengths_tell_apart_are_not_noisy() -> None:
    lengths = [float(length) for length in np.random.default_rng(0).geometric(0.02, 400)]
    seconds = [1e-3 * length for length in lengths]
    assert np.percentile(seconds, 90) > 3 * np.median(seconds)
    assert spread(seconds, strata(lengths)) < 1.5
    shaken = [second * (10 if turn % 5 == 0 else 1) for turn, second in enumerate(seconds)]
    assert spread(shaken, strata(lengths)) > 3


def test_turns_on_work_of_about_one_size_are_told_apart_in_groups_that_are_large_enough() -> None:
    groups = strata([5, 5, 7, 7] * 6 + [100])
    assert np.bincount(groups).min() >= LEAST
    assert groups[0] != groups[2]
    assert set(strata([3.0] * 5)) == {0}


def test_p90_above_three_medians_and_more_tasks_than_cores_are_noise_and_less_is_not() -> None:
    assert turns(load=2.0).noise([1.0] * 71 + [2.9] * 9) == ""
    assert turns().noise([1.0] * 71 + [3.1] * 9) == "p90 is 3.1 times the median"
    assert turns(load=2.4).noise(EVEN) == "2.4 tasks shared 2 cores"
    assert turns(load=1.5, cores=1).noise(BURST) == "p90 is 9.0 times the median and 1.5 tasks shared 1 core"


def test_the_quietest_turns_are_those_in_which_no_runner_had_to_wait_however_short_its_calls() -> None:
    disturbed = np.arange(80) % 2 == 0
    spent = {"long": [100.0] * 80, "short": [8.0 if waits else 1.0 for waits in disturbed]}
    quiet = quietest(spent, strata([1.0] * 80))
    assert len(quiet) == 20
    assert not disturbed[quiet].any()


def test_the_median_of_the_quietest_quarter_stands_beside_the_median() -> None:
    seconds = [0.004] * 50 + [0.002] * 30
    known = Turns.of({"a": seconds}, [1.0] * 80, load=None)
    timing = entry(seconds, known, device=CPU, threads=1, batch=1, tokens="real", tokenization=False)
    assert (timing["median_ms"], timing["quiet_ms"]) == (4.0, 2.0)
    assert "noise" not in timing
    noisy = entry(BURST, turns(), device=CPU, threads=1, batch=1, tokens="real", tokenization=False)
    assert noisy["noise"] == "p90 is 9.0 times the median"


@pytest.mark.parametrize(
    ("measurements", "loads", "kept", "calls"),
    [
        ([EVEN, BURST], [1, 1], EVEN, 1),  # quiet at once
        ([BURST, EVEN], [1, 1], EVEN, 2),
        ([BURST, [1.0] * 60 + [30.0] * 20], [1, 1], BURST, 2),  # the second was worse
        ([EVEN, [2.0] * 80], [9, 1], [2.0] * 80, 2),  # other work came to an end
    ],
)
def test_a_noisy_measurement_is_repeated_once_and_the_quieter_one_is_kept(
    measurements: list[list[float]], loads: list[float], kept: list[float], calls: int
) -> None:
    given, made = iter(measurements), []
    seen = iter(loads)

    def measure(look: Callable[[], None], left: float) -> dict[Any, list[float]]:
        look()
        assert left == (1000 - sum(made[0]) if made else 1000)
        made.append(next(given))
        return {("a", False): made[-1]}

    def load() -> Load:
        value = next(seen)
        return Load(read=lambda: value)

    spent, known = quieter(measure, [1.0], 1000, load)
    assert spent == {("a", False): kept}
    assert known is not None
    assert len(made) == calls


@pytest.mark.parametrize(("rows", "seconds", "calls"), [(1, 240, 1), (1, 250, 1), (1, 300, 2), (80, 240, 2)])
def test_what_is_repeated_fits_into_the_time_that_is_left_except_for_one_pass_over_rows(
    rows: int, seconds: float, calls: int
) -> None:
    """80 calls that take 240 seconds leave 0, 3 and 20 calls' time."""
    given: list[float] = []

    def measure(look: Callable[[], None], left: float) -> dict[Any, list[float]]:
        given.append(left)
        return {("a", False): BURST}

    quieter(measure, [1.0] * rows, seconds, lambda: Load(read=lambda: 1))
    assert sum(BURST) == 240
    assert given == [seconds, seconds - 240][:calls]


def test_the_load_is_that_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: "4.65 3.37 1.56 5/135 13871\n")
    assert machine.tasks() == 5
    monkeypatch.setattr(Path, "read_text", lambda path: "")
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 1.0, 2.0))
    assert machine.tasks() == 0.5


class Clock(Device):
    """A device whose calls take made-up times."""

    name = "clock"

    def seconds(self, action: Callable[[], object]) -> float:
        return float(str(action()))


def test_the_share_that_is_done_counts_seconds_where_they_end_it_first() -> None:
    looked: list[float] = []
    spent: dict[str, list[float]] = {"slow": [], "fast": []}
    runners = {"slow": lambda feed: 1.0, "fast": lambda feed: 0.001}
    feeds = {name: [{"n": np.array([0])}] for name in runners}
    spent = time_in_turns(runners, feeds, 8, 4.0, None, Clock(), between=lambda: looked.append(1))
    assert {name: len(times) for name, times in spent.items()} == {"slow": 8, "fast": 8}
    assert len(looked) == 8
    assert share_done({"slow": [1.0] * 2}, {"slow": 2.0}, calls=100, seconds=4.0) == 0.5
    assert share_done({"slow": [1.0], "fast": [0.1]}, {"slow": 1.0, "fast": 0.1}, calls=10, seconds=4.0) == 0.1
    assert share_done({}, {}, calls=10, seconds=4.0) == 1.0
