"""The trials: what Optuna proposes is trained a cycle at a time, and goes on only where it leads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import DivergedError, MissingPackageError, StorageError
from compress.files import locked
from compress.search.candidates import GIVEN, Candidate, Trial

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.log"
ASKING = "asking.lock"  # held while a trial is asked for, so that workers together begin no more than there are to be
STARTUP = 8  # trials before the sampler uses what it has learned
PATIENCE = 20  # proposals in a row for which there is no time, after which none is asked for any more
CANDIDATE, WAY, ROWS, RATE = "candidate", "way", "rows", "learning_rate"
METRICS, SECONDS, FAILURE = "metrics", "seconds", "failure"  # attributes of a trial


@dataclass(frozen=True)
class Choice:
    """A candidate, the ways to train it, the rows that it can learn from, and its latency in its fastest form."""

    candidate: Candidate
    ways: Sequence[str]
    ms: float
    rows: Sequence[str] = (GIVEN,)


@dataclass(frozen=True)
class CycleResult:
    """What a trial is worth after a cycle, and the seconds that this cycle took when it was trained."""

    metric: float
    seconds: float


@dataclass(frozen=True)
class EndedTrial:
    """A trial and the main metric on validation rows after each of its cycles."""

    number: int
    trial: Trial
    ms: float
    metrics: list[float]
    cycle_seconds: list[float]
    ended: str  # "complete", "stopped" (pruned), "failed" or "unfinished"
    failure: str = ""  # why its training ended early, as a sentence

    @property
    def metric(self) -> float:
        """The metric after the last cycle."""
        return self.metrics[-1]

    @property
    def seconds(self) -> float:
        """What all its cycles took."""
        return sum(self.cycle_seconds)


def optuna_module() -> Any:
    """Return the package; raises MissingPackageError."""
    try:
        import optuna
    except ImportError:
        raise MissingPackageError("optuna", "search", "compress search") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class _Lock:
    """A lock on the journal that ends with its process, also when that is killed; Optuna's own would stay behind."""

    def __init__(self, journal: Path) -> None:
        self.path, self.held = journal.with_suffix(".lock"), ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock."""
        self.held.enter_context(locked(self.path))
        return True

    def release(self) -> None:
        """Let others have it."""
        self.held.close()


def _cut_to_whole_lines(journal: Path) -> None:
    """Cut off a line that a full disk or a power failure left unfinished: nothing behind it could be read."""
    if journal.is_file():
        with journal.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


class Study:
    """Trials of one search, in Optuna's journal: what a killed process has finished is there when it starts again."""

    def __init__(
        self, folder: Path, choices: Sequence[Choice], value: Callable[[float, float], float], seed: int,
        worker: int = 0,
    ) -> None:  # fmt: skip
        """Begin or open the study in ``folder``; ``value(metric, ms)`` is what it maximizes. Raises StorageError.

        The first worker, 0, opens it before all others, and sees to what a killed process has left.
        """
        optuna = optuna_module()
        self.choices = {choice.candidate.name: choice for choice in choices}
        self.value, journal, self._asking = value, folder / JOURNAL, folder / ASKING
        if worker == 0:
            _cut_to_whole_lines(journal)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some of its options are called experimental
                halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
                backend = optuna.storages.journal.JournalFileBackend(str(journal), lock_obj=_Lock(journal))
                self._study: Any = optuna.create_study(
                    study_name="search", storage=optuna.storages.JournalStorage(backend), load_if_exists=True,
                    direction="maximize", pruner=halving,
                )  # fmt: skip
                known = self._study.get_trials(deepcopy=False)
                self._study.sampler = optuna.samplers.TPESampler(
                    multivariate=True, group=True, n_startup_trials=STARTUP, constant_liar=True,
                    seed=(seed + len(known) + 1000 * worker) % 2**32,  # others than were drawn, here and elsewhere
                )  # fmt: skip
        except (ValueError, KeyError) as error:
            raise StorageError(
                f"{journal}: cannot be read: {error}. Move it away and run the same command again: finished trainings "
                "are in the cache."
            ) from error
        self._complete, self._pruned = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED
        self._fail, self._running = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.RUNNING
        if worker == 0:
            self._propose([trial.system_attrs.get("fixed_params") for trial in known])
        for interrupted in known:
            if worker == 0 and interrupted.state == self._running:
                self._study.enqueue_trial(interrupted.params)  # its finished cycles are in the cache
                self._study.tell(interrupted.number, state=self._fail)

    def _propose(self, proposed: Sequence[Any]) -> None:
        """Let every candidate be tried once, in its first way, before the sampler proposes anything.

        The fastest comes first: how long it trains tells how long the others will.
        """
        for choice in sorted(self.choices.values(), key=lambda choice: choice.ms):
            way, rate = _names(choice)
            first = {CANDIDATE: choice.candidate.name, way: choice.ways[0], rate: choice.candidate.rate}
            first |= {ROWS: choice.rows[0]} if len(choice.rows) > 1 else {}
            if first not in proposed:
                self._study.enqueue_trial(first)

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return sum(tried.ended != "unfinished" for tried in self.tried())

    def run(
        self, trials: int, cycles: int, train: Callable[[Trial, int], CycleResult], fits: Callable[[Trial, int], bool],
        tell: Callable[[], None],
    ) -> None:  # fmt: skip
        """Try until ``trials`` have begun, or nothing that is proposed fits into the time that is left.

        ``train(trial, n)`` gives what a trial is worth after ``n`` cycles, on validation rows; ``fits(trial, n)`` says
        whether there is time for the n-th, and ``tell`` is called after each.
        """
        unfit = 0
        while unfit < PATIENCE and (asked := self._ask(trials)) is not None:
            trial, ms = self._suggested(asked)
            if not fits(trial, 1):
                unfit += 1
                self._study.tell(asked, state=self._fail)
                continue
            unfit = 0
            self._carry_out(asked, trial, ms, cycles, train, fits, tell)

    def _ask(self, trials: int) -> optuna.Trial | None:
        """Return a new trial; None where so many have begun."""
        with locked(self._asking):
            known = self._study.get_trials(deepcopy=False)
            begun = sum(trial.state == self._running or self._has_ended(trial) for trial in known)
            return self._study.ask() if begun < trials else None

    def _carry_out(
        self, asked: optuna.Trial, trial: Trial, ms: float, cycles: int, train: Callable[[Trial, int], CycleResult],
        fits: Callable[[Trial, int], bool], tell: Callable[[], None],
    ) -> None:  # fmt: skip
        metrics: list[float] = []
        seconds: list[float] = []
        state = self._complete
        for cycle in range(1, cycles + 1):
            if metrics and not fits(trial, cycle):
                break
            try:
                outcome = train(trial, cycle)
            except DivergedError as failure:
                asked.set_user_attr(FAILURE, str(failure))
                break
            metrics.append(outcome.metric)
            seconds.append(outcome.seconds)
            asked.set_user_attr(METRICS, metrics)
            asked.set_user_attr(SECONDS, seconds)
            asked.report(self.value(metrics[-1], ms), cycle)
            tell()
            if cycle < cycles and asked.should_prune():
                state = self._pruned
                break
        if not metrics:
            self._study.tell(asked, state=self._fail)
        elif state == self._pruned:
            self._study.tell(asked, state=state)  # its last report is its value
        else:
            self._study.tell(asked, self.value(metrics[-1], ms))

    def tried(self) -> list[EndedTrial]:
        """Return all trials that have a metric, or a reason why they have none, in their order."""
        ended = {self._complete: "complete", self._pruned: "stopped", self._fail: "failed"}
        return [
            EndedTrial(
                trial.number, *self._read(trial.params), trial.user_attrs.get(METRICS, []),
                trial.user_attrs.get(SECONDS, []), ended.get(trial.state, "unfinished"),
                trial.user_attrs.get(FAILURE, ""),
            )
            for trial in self._study.get_trials(deepcopy=False)
            if (trial.user_attrs.get(METRICS) and trial.state != self._fail) or FAILURE in trial.user_attrs
        ]  # fmt: skip

    def _has_ended(self, trial: Any) -> bool:
        """Whether a trial counts: what a killed process was at, and what there was no time for, does not."""
        return trial.state in (self._complete, self._pruned) or FAILURE in trial.user_attrs

    def _suggested(self, asked: optuna.Trial) -> tuple[Trial, float]:
        choice = self.choices[asked.suggest_categorical(CANDIDATE, list(self.choices))]
        way, rate = _names(choice)
        asked.suggest_categorical(way, list(choice.ways))
        asked.suggest_float(rate, *choice.candidate.rates, log=True)
        if len(choice.rows) > 1:
            asked.suggest_categorical(ROWS, list(choice.rows))
        return self._read(asked.params)

    def _read(self, params: dict[str, Any]) -> tuple[Trial, float]:
        choice = self.choices[params[CANDIDATE]]
        way, rate = _names(choice)
        return Trial(choice.candidate, params[way], params[rate], params.get(ROWS, GIVEN)), choice.ms


def _names(choice: Choice) -> tuple[str, str]:
    """Return the names of a candidate's way and rate, which candidates share that have the same ones to choose from."""
    kind = f"{'layers' if choice.candidate.layers else 'words'}: {', '.join(choice.ways)}"
    return f"{WAY} ({kind})", f"{RATE} ({kind})"
