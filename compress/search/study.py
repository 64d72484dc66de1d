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
STARTUP = 8  # trials before the sampler uses what it has learned; those that are proposed below come first
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
        self._waiting = optuna.trial.TrialState.WAITING
        if not self._study.trials:
            self._propose()
        for interrupted in self._study.get_trials(deepcopy=False, states=(self._running,)):
            self._study.tell(interrupted.number, state=self._fail)
            self._study.enqueue_trial(interrupted.params)  # its finished cycles are in the cache

    def _propose(self) -> None:
        """Put what has proved itself first: every candidate's first way, the most accurate candidates before others."""
        for choice in self.choices.values():
            self._study.enqueue_trial(_params(choice.candidate, choice.ways[0], choice.candidate.rate))

    @property
    def begun(self) -> int:
        """How many trials have ended."""
        return len(self._study.get_trials(deepcopy=False, states=(self._complete, self._pruned)))

    @property
    def seconds(self) -> float:
        """What the trials have taken, those of earlier processes too."""
        return sum(float(trial.user_attrs.get(SECONDS, 0)) for trial in self._study.get_trials(deepcopy=False))

    def run(self, trials: int, cycles: int, metric: Callable[[Trial, int], float], go_on: Callable[[], bool]) -> None:
        """Try until ``trials`` have ended, or ``go_on`` says no, which is asked before every cycle.

        ``metric(trial, n)`` is that of a trial after ``n`` cycles, on validation rows.
        """
        while self.begun < trials and go_on():
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

    def importances(self) -> dict[str, float]:
        """Return the share of the differences that each setting explains (fANOVA); empty for too few trials."""
        optuna = optuna_module()
        if len(self._study.get_trials(deepcopy=False, states=(self._complete, self._pruned))) < STARTUP:
            return {}
        try:
            return dict(optuna.importance.get_param_importances(self._study, params=[CANDIDATE]))
        except (ValueError, RuntimeError):  # all trials are equally good
            return {}

    def _suggested(self, asked: optuna.Trial) -> tuple[Trial, float]:
        name = asked.suggest_categorical(CANDIDATE, list(self.choices))
        choice = self.choices[name]
        kind = _kind(choice.candidate)
        asked.suggest_categorical(f"{WAY}_{kind}", list(choice.ways))
        asked.suggest_float(f"{RATE}_{kind}", *choice.candidate.rates, log=True)
        return self._read(asked.params)

    def _read(self, params: dict[str, Any]) -> tuple[Trial, float]:
        choice = self.choices[params[CANDIDATE]]
        kind = _kind(choice.candidate)
        return Trial(choice.candidate, params[f"{WAY}_{kind}"], params[f"{RATE}_{kind}"]), choice.ms


def _params(candidate: Candidate, way: str, rate: float) -> dict[str, Any]:
    kind = _kind(candidate)
    return {CANDIDATE: candidate.name, f"{WAY}_{kind}": way, f"{RATE}_{kind}": rate}


def _kind(candidate: Candidate) -> str:
    """Return what shares a space of ways and rates: a way that one layer lacks is one of a space of its own."""
    return "layers" if candidate.layers > 1 else "layer" if candidate.layers else "words"
