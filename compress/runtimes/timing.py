"""Calls timed alternately, after a warm-up, so that a drifting machine affects everything compared equally."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from compress.progress import progress
from compress.runtimes.devices import CPU, Device
from compress.tasks.base import Array

WARM_UP = 3  # calls of each runner, at least, before any is timed

Name = TypeVar("Name")
Run = Callable[[Any], Any]
"""What is timed, given one of its feeds."""


def time_in_turns(
    runners: Mapping[Name, Run],
    feeds: Mapping[Name, Sequence[Any]],
    calls: int,
    seconds: float,
    title: str | None,
    device: Device = CPU,
    failures: dict[Name, Exception] | None = None,
) -> dict[Name, list[float]]:
    """Return seconds per call for each runner, called in turn (A B A B …) on one of its feeds after the other.

    All runners have equally many feeds, and run on ``device``, which is idle before each call and done after it. It
    ends after a whole pass over the feeds when each runner has been called ``calls`` times, or, for slow ones, been
    busy for ``seconds``; so a drifting machine affects all equally. What a runner prepares for a shape of inputs (a
    buffer, a kernel) is not in the figures: it is called once on each before.

    With ``failures``, a runner that raises is added to them and left out from then on, without seconds of its own;
    otherwise its error is raised.
    """
    spent: dict[Name, list[float]] = {name: [] for name in runners}

    @contextmanager
    def guarded(name: Name) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # runtimes' errors share no base class
            if failures is None:
                raise
            failures[name] = error
            del spent[name]

    for name, runner in runners.items():
        with guarded(name):
            for feed in [*feeds[name][:WARM_UP], *_other_shapes(feeds[name])]:
                runner(feed)
    busy = dict.fromkeys(runners, 0.0)
    with progress(total=calls, title=title, unit="call") as bar:
        while any(len(times) < calls and busy[name] < seconds for name, times in spent.items()):
            for turn in zip(*(feeds[name] for name in runners), strict=True):
                for (name, runner), feed in zip(runners.items(), turn, strict=True):
                    if name not in spent:
                        continue
                    with guarded(name):
                        spent[name].append(device.seconds(partial(runner, feed)))
                        busy[name] += spent[name][-1]
                bar.update()
    return spent


def _other_shapes(feeds: Sequence[Any]) -> list[Any]:
    """Return one feed of each shape that is not among the first ones; texts have none."""
    if not all(isinstance(feed, Mapping) for feed in feeds):
        return []
    shapes = [tuple(tuple(value.shape) for value in feed.values()) for feed in feeds]
    known = set(shapes[:WARM_UP])
    return [feed for shape, feed in dict(zip(shapes, feeds, strict=True)).items() if shape not in known]


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
