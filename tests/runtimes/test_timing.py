"""What is taken from timings in turns when the machine does other work too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.runtimes.timing import quiet_rows, quiet_turns, time_in_turns


def test_a_drift_that_touches_both_leaves_their_ratio() -> None:
    generator = np.random.default_rng(0)
    drift = 1 + generator.exponential(2.0, 200)
    drift[:60] = 1.0  # the machine is left alone for a while
    found = quiet_turns({"slow": list(3 * drift), "fast": list(drift)})
    assert found == {"slow": pytest.approx(3), "fast": pytest.approx(1)}


def test_each_row_counts_by_its_fastest_call() -> None:
    calls = [1.0, 20.0, 3.0, 10.0, 2.0, 30.0]  # two passes over three rows
    np.testing.assert_array_equal(quiet_rows({"a": calls}, 3)["a"], [1, 2, 3])


def test_a_runner_that_fails_leaves_the_others_to_their_turns() -> None:
    calls = iter(range(100))

    def breaks(feed: Any) -> None:
        if next(calls) == 5:
            raise MemoryError("all of it")

    runners = {"a": lambda feed: None, "b": breaks, "c": lambda feed: next(iter(()))}
    feeds = {name: [{"n": np.array([0])}] for name in runners}
    failures: dict[str, Exception] = {}
    spent = time_in_turns(runners, feeds, 20, 60.0, None, failures=failures)
    assert {name: len(times) for name, times in spent.items()} == {"a": 20}
    assert {name: type(error) for name, error in failures.items()} == {"b": MemoryError, "c": StopIteration}
    with pytest.raises(StopIteration):
        time_in_turns({"c": runners["c"]}, feeds, 20, 60.0, None)


def test_runners_take_turns_and_whole_passes() -> None:
    called: list[tuple[str, int]] = []
    runners = {name: lambda feed, name=name: called.append((name, int(feed["n"][0]))) for name in "ab"}
    feeds = [{"n": np.array([number])} for number in range(2)]
    spent = time_in_turns(runners, {"a": feeds, "b": feeds}, calls=3, seconds=60.0, title=None)
    assert called[4:] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)] * 2
    assert {name: len(times) for name, times in spent.items()} == {"a": 4, "b": 4}


def test_without_any_seconds_left_there_is_one_pass() -> None:
    feeds = {"a": [{"n": np.array([number])} for number in range(3)]}
    spent = time_in_turns({"a": lambda feed: None}, feeds, calls=100, seconds=0.0, title=None)
    assert len(spent["a"]) == 3
