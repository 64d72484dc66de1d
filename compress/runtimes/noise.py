"""Whether timings can be trusted: how calls on equal work spread, and what else the machine had to do meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress import machine

Array = NDArray[Any]

SPREAD = 3.0  # p90 over median, above which calls are noisy
LEAST = 8  # calls on work of about one size, before they say how such calls spread
QUIET = 0.25  # share of the turns that counts as the quietest
SECONDS_APART = 0.02  # between looks at the machine's load


def strata(sizes: Sequence[float]) -> Array:
    """Return a number for each turn (turns,), equal for turns on work of about one size; `LEAST` of each, or more.

    ``sizes`` say how much work each turn was, in any unit.
    """
    given = np.asarray(sizes)
    order = np.argsort(given, kind="stable")
    numbers = np.zeros(len(given), dtype=np.int64)
    number = count = 0
    for place, turn in enumerate(order):
        if count >= LEAST and given[turn] != given[order[place - 1]] and len(order) - place >= LEAST:
            number, count = number + 1, 0
        numbers[turn] = number
        count += 1
    return numbers


def levelled(seconds: Sequence[float], alike: Array) -> Array:
    """Return each call's time over the median of those on work like it (turns,)."""
    times = np.asarray(seconds, dtype=np.float64)
    medians = np.array([np.median(times[alike == number]) for number in range(int(alike.max()) + 1)])
    ratios: Array = times / np.maximum(medians[alike], 1e-12)
    return ratios


def spread(seconds: Sequence[float], alike: Array) -> float:
    """Return p90 over the median of calls, beyond what the sizes of their work explain."""
    ratios = levelled(seconds, alike)
    return float(np.percentile(ratios, 90) / np.median(ratios))


def quietest(spent: Mapping[Any, Sequence[float]], alike: Array, share: float = QUIET) -> Array:
    """Return the turns in which the machine did least else: the fastest ``share`` of those on work like theirs.

    Every runner counts alike, however long its calls are.
    """
    slowness = np.sum([levelled(seconds, alike) for seconds in spent.values()], axis=0)
    chosen: list[int] = []
    for number in range(int(alike.max()) + 1):
        turns = np.flatnonzero(alike == number)
        best = turns[np.argsort(slowness[turns], kind="stable")]
        chosen += best[: max(1, int(share * len(turns)))].tolist()
    return np.array(sorted(chosen))


@dataclass
class Load:
    """The mean number of tasks that ran or waited for a processor while something was timed."""

    read: Callable[[], float | None] = machine.tasks
    seen: list[float] = field(default_factory=list)
    last: float = 0.0

    def look(self) -> None:
        """Look once, if the last time is long enough ago."""
        now = time.monotonic()
        if now - self.last >= SECONDS_APART:
            self.last = now
            if (tasks := self.read()) is not None:
                self.seen.append(tasks)

    @property
    def mean(self) -> float | None:
        """The mean; None where the system does not tell."""
        return sum(self.seen) / len(self.seen) if self.seen else None


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What is known of the turns in which some runners were timed together."""

    alike: Array  # (turns,), as `strata` gives it
    quiet: Array  # the quietest turns
    load: float | None
    cores: int

    @classmethod
    def of(cls, spent: Mapping[Any, Sequence[float]], sizes: Sequence[float], load: float | None) -> Turns:
        """Return it for the seconds of each runner in each turn, on work of these sizes."""
        alike = strata(sizes)
        return cls(alike=alike, quiet=quietest(spent, alike), load=load, cores=machine.cores())

    def noise(self, seconds: Sequence[float]) -> str:
        """Return why a runner's seconds in these turns are noisy, as a clause; empty where they are not."""
        wide = spread(seconds, self.alike)
        reasons = []
        if wide > SPREAD:
            reasons.append(f"p90 is {wide:.1f} times the median")
        if self.load is not None and self.load > self.cores:
            cores = f"{self.cores} core{'s' * (self.cores != 1)}"
            reasons.append(f"{self.load:.1f} tasks shared {cores}")
        return " and ".join(reasons)

    def badness(self, spent: Mapping[Any, Sequence[float]]) -> float:
        """Return how noisy the worst of the runners is; above 1 it is noisy."""
        widest = max((spread(seconds, self.alike) for seconds in spent.values()), default=0.0)
        return max(widest / SPREAD, (self.load or 0.0) / self.cores)
