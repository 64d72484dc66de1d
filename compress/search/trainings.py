"""The trainings of a search, in its own process or in another: trials a cycle at a time, finalists with more seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from compress.benchmark.scores import ScoredRows
from compress.pipeline.record import Role
from compress.pipeline.state import State
from compress.run.recipe import Recipe
from compress.search.candidates import Trial
from compress.search.pace import Ending
from compress.search.settings import Search
from compress.search.study import Choice, CycleResult, EndedTrial, Study


@dataclass(frozen=True)
class Goal:
    """What a search maximizes of a trial's metric and latency."""

    needed: float | None  # metric on validation rows; None: a speed is asked for, which every trial has
    teacher_ms: float

    def value(self, metric: float, ms: float) -> float:
        """Return the metric; or the speed of what keeps enough, and below 0 what the others lack."""
        if self.needed is None:
            return metric
        return self.teacher_ms / ms if metric >= self.needed else metric - self.needed


@dataclass(frozen=True)
class Trainings:
    """All that trials have in common; another process can be handed it."""

    folder: Path
    base: Recipe
    settings: Search
    taught: State
    choices: Sequence[Choice]
    goal: Goal
    ending: Ending
    deadline: float | None  # on the machine's monotonic clock; None: there is no limit

    def study(self, worker: int = 0) -> Study:
        """Open the study."""
        return Study(self.folder, self.choices, self.goal.value, self.base.seed, worker)

    def try_all(
        self, study: Study, say: Callable[[str], None], tell: Callable[[], None] = lambda: None,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        """Try until there are enough trials, or no time; ``go_on`` is asked before a cycle, ``tell`` called after."""

        def train(trial: Trial, cycle: int) -> CycleResult:
            return self.after(trial, cycle, self.base.seed, say)

        def fits(trial: Trial, cycle: int) -> bool:
            return go_on() and self.fits(trial, cycle, study.tried())

        study.run(self.settings.trials, self.settings.cycles, train, fits, tell)

    def fits(self, trial: Trial, cycle: int, tried: Sequence[EndedTrial]) -> bool:
        """Return whether there is time for a cycle of a trial and for all that comes after the trials."""
        if self.deadline is None:
            return True
        for other in tried:
            self.ending.pace.note(other.trial, other.cycle_seconds)
        after = [(trial, cycle), *((other.trial, len(other.metrics)) for other in ranked(tried, self.goal))]
        wanted = self.ending.pace.of(trial, [cycle]) + self.ending.seconds(after)
        return time.monotonic() + wanted <= self.deadline

    def final_fits(self, tried: EndedTrial, finalists: Sequence[EndedTrial], trainings: int) -> bool:
        """Return whether there is time for so many trainings as long as that of ``tried``, and what comes after."""
        if self.deadline is None:
            return True
        best = [(other.trial, len(other.metrics)) for other in finalists]
        alone = self.ending.pace.whole(tried.trial, len(tried.metrics))
        wanted = alone * trainings / self.settings.workers + self.ending.without_finals(best)
        return time.monotonic() + wanted <= self.deadline

    def after(self, trial: Trial, cycles: int, seed: int, say: Callable[[str], None]) -> CycleResult:
        """Return what a trial is worth after its cycles with a seed, of which the last is trained now."""
        say(
            f"{trial.candidate.name}, {trial.way}, {trial.rows} rows, learning rate {trial.learning_rate:.2g}, "
            f"cycle {cycles} of {self.settings.cycles}{'' if seed == self.base.seed else f', seed {seed}'}"
        )
        started = time.monotonic()
        state = self.trained(trial, cycles, seed)
        metric = self.scores.metric(self.scores.logits(state.given_student))
        say(f"  validation {self.taught.data.task.main_metric} {metric:.4f}")
        made = state.records[len(self.taught.records) :]
        last = made[-1].seconds / cycles  # what is in the cache took its time earlier, or in another process
        first = sum(record.seconds for record in made[:-1] if record.role is Role.preparation) if cycles == 1 else 0.0
        return CycleResult(metric, max(time.monotonic() - started, first + last))

    @cached_property
    def scores(self) -> ScoredRows:
        """The validation rows."""
        return ScoredRows(self.taught, self.taught.data.validation)

    def trained(self, trial: Trial, cycles: int, seed: int) -> State:
        """Return the state with the student of a trial; all trials have one teacher."""
        recipe = trial.recipe(self.base, cycles, seed)
        state = self.taught.with_seed(seed)
        for augmentation in recipe.augment.values():
            state = augmentation(state)
        state = trial.candidate.untrained(state)
        layers = [stage for name, stage in recipe.prepare.items() if name not in trial.candidate.cut]
        for stage in (*layers, recipe.distill):
            state = stage(state)
        return state


def ranked(trials: Sequence[EndedTrial], goal: Goal) -> list[EndedTrial]:
    """Return the trials that have a metric, the best first."""
    ended = [tried for tried in trials if tried.metrics]
    return sorted(ended, key=lambda tried: goal.value(tried.metric, tried.ms), reverse=True)
