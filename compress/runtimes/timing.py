"""Calls timed in turns: warmed up, so that a drifting machine touches all that are compared alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from compress.models.outputs import INPUTS
from compress.models.tokens import Tokens
from compress.progress import progress
from compress.tasks.base import Array

WARM_UP = 3  # calls of each runner before any is timed

Name = TypeVar("Name")
Run = Callable[[Mapping[str, Array]], Any]
"""What is timed: given a feed, it returns when the answer is there."""


def model_inputs(tokens: Tokens, rows: list[int]) -> dict[str, Array]:
    """Return a padded batch as a runner takes it."""
    return {name: value.numpy() for name, value in tokens.batch(rows).items() if name in INPUTS}


def time_in_turns(
    runners: Mapping[Name, Run],
    feeds: Mapping[Name, Sequence[Mapping[str, Array]]],
    calls: int,
    seconds: float,
    title: str | None,
) -> dict[Name, list[float]]:
    """Return seconds a call for each runner, called in turn (A B A B …) on one of its feeds after the other.

    All runners have equally many feeds. It ends after a whole pass over them when each runner has been called
    ``calls`` times, or, for slow ones, been busy for ``seconds``; so a drifting machine touches all alike.
    """
    for name, runner in runners.items():
        for feed in feeds[name][:WARM_UP]:
            runner(feed)
    spent: dict[Name, list[float]] = {name: [] for name in runners}
    busy = dict.fromkeys(runners, 0.0)
    with progress(total=calls, title=title, unit="call") as bar:
        while any(len(spent[name]) < calls and busy[name] < seconds for name in runners):
            for turn in zip(*(feeds[name] for name in runners), strict=True):
                for (name, runner), feed in zip(runners.items(), turn, strict=True):
                    start = time.perf_counter()
                    runner(feed)
                    spent[name].append(time.perf_counter() - start)
                    busy[name] += spent[name][-1]
                bar.update()
    return spent


def quiet_turns(spent: Mapping[Name, Sequence[float]], share: float = 0.25) -> dict[Name, float]:
    """Return each runner's median over the fastest turns, those in which the machine did least else.

    For runners that do the same in every turn: of turns on rows of different lengths it would take the short ones.
    """
    times = np.array(list(spent.values()))  # (runners, turns)
    order = times.sum(0).argsort(kind="stable")[: max(1, int(share * times.shape[1]))]
    return {name: float(np.median(row[order])) for name, row in zip(spent, times, strict=True)}


def quiet_rows(spent: Mapping[Name, Sequence[float]], rows: int) -> dict[Name, Array]:
    """Return each runner's fastest call on each of ``rows`` feeds, (rows,), of turns that went over all of them."""
    return {name: np.reshape(times, (-1, rows)).min(0) for name, times in spent.items()}
