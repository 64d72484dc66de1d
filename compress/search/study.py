"""The trials: what Optuna proposes is trained a cycle at a time, and goes on only where it leads."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import MissingPackageError
from compress.search.candidates import Candidate, Trial

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.log"
STARTUP = 8  # trials before the sampler uses what it has learned
CANDIDATE, WAY, RATE = "candidate", "way", "learning_rate"
METRICS, SECONDS = "metrics", "seconds"  # attributes of a trial


@dataclass(frozen=True)
class Choice:
    """A candidate, the ways to train it, and its latency in its fastest form."""

    candidate: Candidate
    ways: Sequence[str]
    ms: float


@dataclass(frozen=True)
class EndedTrial:
    """A trial and the main metric on validation rows after each of its cycles."""

    number: int
    trial: Trial
    ms: float
    metrics: list[float]
    seconds: float
    ended: str  # "complete", "stopped" (pruned) or "unfinished"

    @property
    def metric(self) -> float:
        """The metric after the last cycle."""
        return self.metrics[-1]


def optuna_module() -> Any:
    """Return the package; raises MissingPackageError."""
    try:
        import optuna
    except ImportError:
        raise MissingPackageError("optuna", "search", "compress search") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Study:
    """Trials of one search, in Optuna's journal: what a killed process has finished is there when it starts again."""

    def __init__(
        self, folder: Path, choices: Sequence[Choice], value: Callable[[float, float], float], seed: int
    ) -> None:
        """Begin or open the study in ``folder``; ``value(metric, ms)`` is what it maximizes."""
        optuna = optuna_module()
        self.choices = {choice.candidate.name: choice for choice in choices}
        self.value = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of its options are called experimental
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL)))
            self._study: Any = optuna.create_study(
                study_name="search", storage=storage, load_if_exists=True, direction="maximize",
                sampler=optuna.samplers.TPESampler(
                    multivariate=True, group=True, n_startup_trials=STARTUP, seed=seed, constant_liar=True
                ),
                pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
            )  # fmt: skip
        self._complete, self._pruned = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED
        self._fail, self._running = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.RUNNING
        if not self._study.trials:
            self._propose()
        for interrupted in self._study.get_trials(deepcopy=False, states=(self._running,)):
            self._study.tell(interrupted.number, state=self._fail)
            self._study.enqueue_trial(interrupted.params)  # its finished cycles are in the cache

    def _propose(self) -> None:
        """Let every candidate be tried once, in its first way, before the sampler proposes anything."""
        for choice in self.choices.values():
            way, rate = _names(choice)
            first = {CANDIDATE: choice.candidate.name, way: choice.ways[0], rate: choice.candidate.rate}
            self._study.enqueue_trial(first)

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return len(self._study.get_trials(deepcopy=False, states=(self._complete, self._pruned)))

    def run(self, trials: int, cycles: int, metric: Callable[[Trial, int], float], go_on: Callable[[], bool]) -> None:
        """Try until ``trials`` have ended, or ``go_on`` says no, which is asked before every cycle.

        ``metric(trial, n)`` is that of a trial after ``n`` cycles, on validation rows.
        """
        while self.ended < trials and go_on():
            asked = self._study.ask()
            trial, ms = self._suggested(asked)
            started = time.perf_counter()
            metrics: list[float] = []
            state = self._complete
            for cycle in range(1, cycles + 1):
                if metrics and not go_on():
                    break
                metrics.append(metric(trial, cycle))
                asked.set_user_attr(METRICS, metrics)
                asked.set_user_attr(SECONDS, time.perf_counter() - started)
                asked.report(self.value(metrics[-1], ms), cycle)
                if cycle < cycles and asked.should_prune():
                    state = self._pruned
                    break
            if state == self._pruned:
                self._study.tell(asked, state=state)  # its last report is its value
            else:
                self._study.tell(asked, self.value(metrics[-1], ms))

    def tried(self) -> list[EndedTrial]:
        """Return all trials that have a metric, in their order."""
        ended = {self._complete: "complete", self._pruned: "stopped"}
        return [
            EndedTrial(
                trial.number, *self._read(trial.params), trial.user_attrs[METRICS],
                float(trial.user_attrs[SECONDS]), ended.get(trial.state, "unfinished"),
            )
            for trial in self._study.get_trials(deepcopy=False)
            if trial.user_attrs.get(METRICS) and trial.state != self._fail
        ]  # fmt: skip

    def _suggested(self, asked: optuna.Trial) -> tuple[Trial, float]:
        choice = self.choices[asked.suggest_categorical(CANDIDATE, list(self.choices))]
        way, rate = _names(choice)
        asked.suggest_categorical(way, list(choice.ways))
        asked.suggest_float(rate, *choice.candidate.rates, log=True)
        return self._read(asked.params)

    def _read(self, params: dict[str, Any]) -> tuple[Trial, float]:
        choice = self.choices[params[CANDIDATE]]
        way, rate = _names(choice)
        return Trial(choice.candidate, params[way], params[rate]), choice.ms


def _names(choice: Choice) -> tuple[str, str]:
    """Return the names of a candidate's way and rate, which candidates share that have the same ones to choose from."""
    kind = f"{'layers' if choice.candidate.layers else 'words'}: {', '.join(choice.ways)}"
    return f"{WAY} ({kind})", f"{RATE} ({kind})"
