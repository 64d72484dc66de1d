"""Calls timed alternately, after a warm-up, so that a drifting machine affects everything compared equally."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from compress.progress import progress
from compress.runtimes.devices import CPU, Device
from compress.runtimes.noise import QUIET, quietest
from compress.tasks.base import Array

WARM_UP = 3  # calls of each runner, at least, before any is timed

_BAR = "{l_bar}{bar}| [{elapsed}<{remaining}]"

Name = TypeVar("Name")
Call = Callable[[Any], Any]
"""What is timed, given one of its feeds."""


def time_in_turns(
    runners: Mapping[Name, Call],
    feeds: Mapping[Name, Sequence[Any]],
    calls: int,
    seconds: float,
    title: str | None,
    device: Device = CPU,
    failures: dict[Name, Exception] | None = None,
    between: Callable[[], None] | None = None,
) -> dict[Name, list[float]]:
    """Return seconds per call for each runner, called in turn (A B A B …) on one of its feeds after the other.

    All runners have equally many feeds, and run on ``device``, which is idle before each call and done after it. It
    ends after a whole pass over the feeds when each runner has been called ``calls`` times, or, for slow ones, been
    busy for ``seconds``; so a drifting machine affects all equally. What a runner prepares for a shape of inputs (a
    buffer, a kernel) is not in the figures: it is called once on each before.

    The time left that its bar shows is that until the first of both. ``between`` is called after every turn.

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
    with progress(total=100, title=title, unit="%", bar_format=_BAR) as bar:
        while share_done(spent, busy, calls, seconds) < 1:
            for turn in zip(*(feeds[name] for name in runners), strict=True):
                for (name, runner), feed in zip(runners.items(), turn, strict=True):
                    if name not in spent:
                        continue
                    with guarded(name):
                        spent[name].append(device.seconds(partial(runner, feed)))
                        busy[name] += spent[name][-1]
                if between is not None:
                    between()
                bar.update(max(0.0, 100 * min(1.0, share_done(spent, busy, calls, seconds)) - bar.n))
    return spent


def share_done(spent: Mapping[Name, Sequence[float]], busy: Mapping[Name, float], calls: int, seconds: float) -> float:
    """Return the share that is done of the runner that has most left; from 1 on it is all. 1 without runners."""
    return min((max(len(times) / calls, busy[name] / seconds) for name, times in spent.items()), default=1.0)


def _other_shapes(feeds: Sequence[Any]) -> list[Any]:
    """Return one feed of each shape that is not among the first ones; texts have none."""
    if not all(isinstance(feed, Mapping) for feed in feeds):
        return []
    shapes = [tuple(tuple(value.shape) for value in feed.values()) for feed in feeds]
    known = set(shapes[:WARM_UP])
    return [feed for shape, feed in dict(zip(shapes, feeds, strict=True)).items() if shape not in known]


def quiet_turns(spent: Mapping[Name, Sequence[float]], share: float = QUIET) -> dict[Name, float]:
    """Return each runner's median over the turns in which the machine did least else.

    For runners that do the same in every turn.
    """
    turns = len(next(iter(spent.values())))
    quiet = quietest(spent, np.zeros(turns, dtype=np.int64), share)
    return {name: float(np.median(np.asarray(times)[quiet])) for name, times in spent.items()}


def quiet_rows(spent: Mapping[Name, Sequence[float]], rows: int) -> dict[Name, Array]:
    """Return each runner's fastest call on each of ``rows`` feeds, (rows,), of turns that went over all of them."""
    return {name: np.reshape(times, (-1, rows)).min(0) for name, times in spent.items()}
