"""How long trainings take, told from those that are done, and what of a search's time is spoken for. No clock here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from compress.benchmark.latency import CALLS
from compress.benchmark.stage import Benchmark
from compress.search.candidates import COPIES, PERTURBED, Trial


@dataclass(frozen=True)
class Cycle:
    """One cycle of a trial, which is the same training for every learning rate."""

    candidate: str
    way: str
    rows: str
    first: bool  # it may begin with a training on layers

    @classmethod
    def of(cls, trial: Trial, cycle: int) -> Cycle:
        """Return a cycle, counted from 1, of a trial."""
        return cls(trial.candidate.name, trial.way, trial.rows, cycle == 1)


@dataclass
class CycleTimes:
    """What cycles take: as long as the same one took last, else some time that all take, and more for more work.

    Work is compared by the candidates' latencies in fp32 (``ms``, by name), passes over the rows, and the number of
    rows; ``copied`` are the training rows among ``every``, of which perturbed copies are made.
    """

    ms: Mapping[str, float]
    copied: int
    every: int
    seconds: dict[Cycle, float] = field(default_factory=dict)

    def note(self, trial: Trial, seconds: Sequence[float]) -> None:
        """Note what the cycles of a trial took, the first one first."""
        for number, spent in enumerate(seconds, start=1):
            self.seconds[Cycle.of(trial, min(number, 2))] = spent

    def of(self, trial: Trial, cycles: Iterable[int]) -> float:
        """Return the seconds that cycles, counted from 1, of a trial will take; 0 where nothing is known yet."""
        return sum(self._one(Cycle.of(trial, cycle)) for cycle in cycles)

    def whole(self, trial: Trial, cycles: int) -> float:
        """Return the seconds of a trial from its first to its last cycle."""
        return self.of(trial, range(1, cycles + 1))

    def _one(self, cycle: Cycle) -> float:
        if cycle in self.seconds or not self.seconds:
            return self.seconds.get(cycle, 0.0)
        from scipy.optimize import nnls

        work = np.array([self._work(other) for other in self.seconds])
        spent, wanted = np.array([*self.seconds.values()]), self._work(cycle)
        if len(set(work)) == 1:
            return float(np.median(spent) * max(1.0, wanted / work[0]))
        # each cycle takes some time whatever its work is; relative errors count
        lines = np.stack([np.ones_like(work), work / work.max()], axis=1) / spent[:, None]
        (fixed, growing), _ = nnls(lines, np.ones_like(work))
        return float(fixed + growing * wanted / work.max())

    def _work(self, cycle: Cycle) -> float:
        passes = 2 if cycle.way == "layers_first" and cycle.first else 1
        rows = self.every + (COPIES * self.copied if cycle.rows == PERTURBED else 0)
        return self.ms[cycle.candidate] * passes * rows


@dataclass(frozen=True)
class Ending:
    """What comes after the trials, and how long it takes."""

    pace: CycleTimes
    finalists: int
    seeds: int
    twin: bool  # the finished run trains a student on labels alone, too
    at_once: int  # trainings
    timing: float  # seconds that timing one trained candidate takes
    run: float  # of all else in the finished run

    def seconds(self, best: Sequence[tuple[Trial, int]]) -> float:
        """Return the seconds from the last trial to the end, with these trials and their cycles, best first."""
        final = sorted((self.pace.whole(*tried) for tried in best), reverse=True)[: self.finalists]
        return (self.seeds - 1) * sum(final) / self.at_once + self.without_finals(best)

    def without_finals(self, best: Sequence[tuple[Trial, int]]) -> float:
        """Return the same, where no finalist is trained any more."""
        names = {trial.candidate.name for trial, _ in best}
        longest = max((self.pace.whole(*tried) for tried in best), default=0.0)
        return longest * self.twin + self.timing * (1 + len(names)) + self.run


@dataclass(frozen=True)
class Measuring:
    """What measuring takes in a finished run: every model one row at a time, then in the grid, alternately."""

    benchmark: Benchmark
    teacher: Mapping[str, float]  # milliseconds of a row at its real length, by form
    student: Mapping[str, float]
    tokens: float  # of a row, on average

    def seconds(self, rows: int) -> float:
        """Return the seconds, where ``rows`` rows are tested."""
        real = [*self.teacher.values(), *self.student.values(), max(self.student.values())]
        timed = self.benchmark.rows * sum(real) / 1000
        scored = rows * sum(real) / 1000
        return timed + scored + sum(
            self._turns(batch * length) for batch in self.benchmark.batches for length in self.benchmark.tokens
        )  # fmt: skip

    def _turns(self, tokens: int) -> float:
        """Return the seconds of one condition: all take turns until each has had its calls or its seconds."""
        each = [
            ms * max(1.0, tokens / self.tokens) / 1000 for own in (self.teacher, self.student) for ms in _in_grid(own)
        ]
        return max(min(CALLS, self.benchmark.seconds / spent) for spent in each) * sum(each)


def _in_grid(own: Mapping[str, float]) -> list[float]:
    """Return the milliseconds of a model's forms, of which PyTorch is as slow as the slowest other on long inputs."""
    exported = [ms for form, ms in own.items() if form != "eager"]
    return [*exported, max(exported)]
