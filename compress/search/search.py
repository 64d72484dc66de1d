"""Carry out a search: what needs no training first, then speeds, then trainings, then one finished run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress.benchmark.scores import CannotRunError, ScoredRows
from compress.benchmark.way import Way
from compress.errors import Fault, ModelError, RecipeError
from compress.files import hash_json
from compress.known import Known
from compress.pipeline.artifact import Artifact
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.check import Checked, check, of_teacher, told
from compress.run.place import identity
from compress.run.recipe import Recipe
from compress.run.result import Run, load
from compress.runtimes.devices import CPU
from compress.runtimes.registry import RUNTIMES
from compress.search.candidates import Candidate, Trial, candidates, stems, ways
from compress.search.folder import RUN, held, write
from compress.search.result import (
    FORM_NAMES,
    Finalist,
    FinishedForm,
    FormEntry,
    FreeLunch,
    SearchReport,
    TrialEntry,
    Winner,
)
from compress.search.settings import Search, SearchTarget
from compress.search.speeds import FORMS, TEACHER, Exported, Speed, Speeds, exported, measured, own_forms
from compress.search.study import Choice, EndedTrial, Study, optuna_module
from compress.search.verdict import unreachable, verdict
from compress.settings import all_faults, plain
from compress.teachers.standing_in import with_answers_as_labels
from compress.telling import StageBegan, say, tell, warn

RESERVED = 0.25  # share of the minutes that finalists and the finished run may take


@dataclass(frozen=True)
class Searched:
    """A finished search: its folder, what is in search.json, and the run of the student that it found."""

    folder: Path
    report: SearchReport
    run: Run | None


def search(base: Recipe, target: SearchTarget, settings: Search, command: str) -> Searched:
    """Find the student that reaches the target, or comes nearest, and run its recipe; interrupted, it resumes.

    One that is finished in the folder that is named is returned as it is. Raises RecipeError, before any training, for
    settings that cannot be used and a speed that no candidate has, and MissingPackageError, before any work, where
    Optuna is not installed.
    """
    refuse_faults(base, target, settings)
    optuna_module()
    base, checked = settled(base, settings, say)
    if checked.weights is None:
        raise RecipeError([Fault("teacher", None, "only answers, and a search measures speeds against its weights")])
    for line in (*told(checked.data), *map(str, checked.models)):
        say(line)
    which = hash_json([identity(replace(base, name=None), checked.data.fingerprint), plain(target), plain(settings)])
    with held(base, which, command, target) as (folder, report):
        if report.finished:
            say(f"{folder} holds this search, finished")
            return Searched(folder, report, None if report.winner is None else load(folder / RUN))
        work = _Work(base, target, settings, checked, folder, report)
        return work.carry_out()


def settled(base: Recipe, settings: Search, say: Callable[[str], None] = lambda _: None) -> tuple[Recipe, Checked]:
    """Return what all trials share, with a student that fits the task and the teacher, and what a check finds of it.

    Raises RecipeError; where no student fits, with what is wrong with the first.
    """
    wrong: RecipeError | None = None
    for recipe in stems(settings.students, replace(base, recipe="search")):
        try:
            return recipe, check(replace(recipe, output=None, name=None), say)
        except RecipeError as error:
            wrong = wrong or error
            if not all(fault.setting.startswith(("student", "distill.losses")) for fault in error.faults):
                break
    assert wrong is not None
    raise wrong


def refuse_faults(base: Recipe, target: SearchTarget, settings: Search) -> None:
    """Raise RecipeError with all that is wrong with a search's own settings."""
    faults = [fault.under("target") for fault in all_faults(target)]
    faults += [fault.under("search") for fault in all_faults(settings)]
    if base.alone:
        faults.append(Fault("student", None, "is its own teacher, and a search needs one to learn from"))
    if faults:
        raise RecipeError(faults)


class _Work:
    """One search at work; what is found out goes into ``report``, which is written after every step."""

    def __init__(
        self, base: Recipe, target: SearchTarget, settings: Search, checked: Checked, folder: Path, report: SearchReport
    ) -> None:
        self.base, self.target, self.settings = base, target, settings
        self.folder, self.report = folder, report
        self.data = checked.data
        self.started, self.before = time.monotonic(), report.seconds
        self.workshop = Workshop(base.cache_folder, run=folder)
        self.known = of_teacher(
            base.teacher.inspect(checked.data), Known(reading=True, data=checked.data, task=checked.data.task)
        )

    @property
    def seconds(self) -> float:
        """What the search has taken, in earlier processes too."""
        return self.before + time.monotonic() - self.started

    def carry_out(self) -> Searched:
        begun = State.begin(data=self.data, workshop=self.workshop, seed=self.base.seed)
        state = with_answers_as_labels(self.base.teacher(begun))
        scores = ScoredRows(state, state.data.validation)
        answers = scores.answers()
        if answers is None:
            raise ModelError("The teacher has no answer to some validation rows, by which a search compares students.")
        teacher = scores.metric(answers)
        task = state.data.task
        self.report.metric, self.report.teacher = task.main_metric, teacher
        self.report.validation_rows = len(state.data.validation)
        own = own_forms(state)
        fitting, speeds = self._speeds(state, own)
        limit = self.target.most_ms(speeds.teacher_ms)
        self.report.forms = _forms(speeds, limit)
        self.report.free = list(self._free(own, speeds, limit, scores, teacher))
        self._write()
        met = next((form for form in self.report.free if form.meets), None)
        if met is not None and not self.settings.anyway:
            return self._stop(
                f"The teacher itself in {FORM_NAMES[met.form]} meets the target without any training: "
                f"{met.ms:.3g} ms, {met.keeps:.1%} of its {task.main_metric} on {self.report.validation_rows:,} "
                f"validation rows. {self._noise()}Get it with compress export, or continue: search.anyway=true.",
                met=True,
            )
        within = [candidate for candidate in fitting if speeds.fastest(candidate.name).ms <= limit]
        if not within:
            raise RecipeError([unreachable(self.target, speeds, [candidate.name for candidate in fitting])])
        common = {candidate.name: ways(candidate, self.base, self.known) for candidate in within}
        choices = [Choice(c, common[c.name], speeds.fastest(c.name).ms) for c in within]
        study = Study(self.folder, choices, self._value(teacher, speeds.teacher_ms), self.base.seed)
        self._try(study, state, scores)
        best = self._finals(study, state, scores, teacher, speeds.teacher_ms)
        if best is None:
            return self._stop(self._nothing(study), met=False)
        self._compare(study, state, own, speeds, teacher)
        return self._finish(best, speeds)

    def _speeds(self, state: State, own: Sequence[Artifact]) -> tuple[list[Candidate], Speeds]:
        """Return the candidates that have a speed, and all speeds; an interrupted search keeps to what it measured."""
        fitting, left_out = candidates(self.settings.students, self.base, self.known)
        if self.report.forms:
            left_out |= self.report.left_out
            speeds = Speeds(tuple(Speed(f.name, f.form, f.ms, f.mib, f.noise) for f in self.report.forms))
        else:
            tell(StageBegan(stage=f"timing {len(fitting)} candidates with untrained weights, and the teacher"))
            made = exported({candidate.name: candidate.student(state) for candidate in fitting})
            left_out |= made.failures
            speeds = measured(state, made.forms, own, self.base)
        self.report.left_out = left_out
        for name, why in left_out.items():
            say(f"{name} is left out: {why}")
        return [candidate for candidate in fitting if candidate.name not in left_out], speeds

    def _free(
        self, own: Sequence[Artifact], speeds: Speeds, limit: float, scores: ScoredRows, teacher: float
    ) -> Iterator[FreeLunch]:
        """Yield what the teacher's own deployable forms are worth on validation rows."""
        for artifact, form in zip(own, FORMS, strict=False):
            speed = speeds.of(TEACHER, form)
            if speed is None:
                continue
            runtime = RUNTIMES[artifact.runtime]
            way = Way(
                subject=f"baselines/{form}", runtime=runtime, folder=artifact.folder, key=artifact.key,
                precision=artifact.precision, variant=runtime.variants(artifact.folder, CPU)[0], in_grid=False,
            )  # fmt: skip
            try:
                metric = scores.metric(scores.of_way(way, CPU, self.base.benchmark.threads))
            except CannotRunError as failure:
                warn(f"the teacher as {form} does not run: {failure}")
                continue
            keeps = metric / teacher if teacher > 0 else 0.0
            fits = speed.ms <= limit and (self.target.keep is None or keeps >= self.target.keep)
            yield FreeLunch(form=form, ms=speed.ms, metric=metric, keeps=keeps, meets=fits)

    def _noise(self) -> str:
        """Return a sentence on timings that were noisy, and a space; nothing where none was."""
        noisy = any(form.noise for form in self.report.forms)
        return "The machine was busy, so repeat this on a quiet one before you rely on it. " if noisy else ""

    def _value(self, teacher: float, teacher_ms: float) -> Callable[[float, float], float]:
        """Return what is maximized of a trial's metric and latency.

        With a speed as target, which every trial meets, the metric. Else the speed of those that keep enough, and
        below 0 what the others lack.
        """
        needed = None if self.target.keep is None else self.target.keep * teacher
        if needed is None or self.target.of_speed:
            return lambda metric, _: metric
        return lambda metric, ms: teacher_ms / ms if metric >= needed else metric - needed

    def _time_left(self, share: float = 1.0) -> bool:
        minutes = self.settings.minutes
        return minutes is None or self.seconds < 60 * minutes * share

    def _try(self, study: Study, state: State, scores: ScoredRows) -> None:
        def metric(trial: Trial, cycles: int) -> float:
            begun = (
                f"trial {study.ended + 1} of {self.settings.trials}: {trial.candidate.name}, {trial.way}, learning "
                f"rate {trial.learning_rate:.2g}, cycle {cycles} of {self.settings.cycles}"
            )
            tell(StageBegan(stage=begun))
            found = scores.metric(scores.logits(self._trained(trial, cycles, self.base.seed, state).given_student))
            say(f"  validation {self.report.metric} {found:.4f}")
            return found

        def tell() -> None:
            self.report.trials = [_entry(tried) for tried in study.tried()]
            self._write()

        try:
            study.run(self.settings.trials, self.settings.cycles, metric, lambda: self._time_left(1 - RESERVED), tell)
        finally:
            tell()

    def _trained(self, trial: Trial, cycles: int, seed: int, taught: State) -> State:
        """Return the state with the student of a trial; all trials have one teacher."""
        recipe = trial.recipe(self.base, cycles, seed)
        state = taught.with_seed(seed)
        for stage in (*recipe.augment.values(), recipe.student, *recipe.prepare.values(), recipe.distill):
            state = stage(state)
        return state

    def _finals(
        self, study: Study, state: State, scores: ScoredRows, teacher: float, teacher_ms: float
    ) -> EndedTrial | None:
        """Train the best trials with other seeds, while there is time, and return the best on average."""
        value = self._value(teacher, teacher_ms)
        finalists = ranked(study.tried(), value)
        means: list[tuple[float, EndedTrial]] = []
        self.report.finalists = []
        for tried in finalists[: self.settings.finalists]:
            found = [tried.metric]
            for number in range(1, self.settings.seeds):
                if not self._time_left():
                    break
                tell(StageBegan(stage=f"finalist {tried.number}: seed {number + 1} of {self.settings.seeds}"))
                seed = (self.base.seed + number) % 2**32
                trained = self._trained(tried.trial, len(tried.metrics), seed, state)
                found.append(scores.metric(scores.logits(trained.given_student)))
            mean = sum(found) / len(found)
            means.append((value(mean, tried.ms), tried))
            self.report.finalists.append(
                Finalist(
                    number=tried.number, candidate=tried.trial.candidate.name, cycles=len(tried.metrics),
                    metrics=found, chosen=False,
                )
            )  # fmt: skip
            self._write()
        if not means:
            return None
        best = max(means, key=lambda mean: mean[0])[1]
        for finalist in self.report.finalists:
            finalist.chosen = finalist.number == best.number
        self._write()
        return best

    def _nothing(self, study: Study) -> str:
        """Return why no trial can be chosen."""
        if failures := [tried.failure for tried in study.tried() if tried.failure]:
            return f"No trial could be trained. The first: {failures[0]}"
        return "The time was over before any trial had ended. Give it more: search.minutes."

    def _compare(self, study: Study, state: State, own: Sequence[Artifact], speeds: Speeds, teacher: float) -> None:
        """Time what was trained of each candidate, and set it beside what was foretold."""
        trials = ranked(study.tried(), self._value(teacher, speeds.teacher_ms))
        best = {tried.trial.candidate.name: tried for tried in reversed(trials)}
        tell(StageBegan(stage=f"timing {len(best)} trained candidates"))
        made: Exported = exported(
            {
                name: self._trained(tried.trial, len(tried.metrics), self.base.seed, state)
                for name, tried in best.items()
            }
        )
        now = measured(state, made.forms, own, self.base)
        self.report.compared = [
            FinishedForm(
                name=speed.name, form=speed.form, predicted_ms=before.ms, ms=speed.ms, noise=speed.noise,
                off=(speed.ms / now.teacher_ms) / (before.ms / speeds.teacher_ms) - 1,
            )
            for speed in now.every
            if speed.name in best and (before := speeds.of(speed.name, speed.form)) is not None
        ]  # fmt: skip
        self._write()

    def _finish(self, best: EndedTrial, speeds: Speeds) -> Searched:
        """Run the recipe of the best trial from start to end, and say what it came to on test rows."""
        recipe = best.trial.recipe(self.base, len(best.metrics), self.base.seed)
        run = replace(recipe, name=None, output=str(self.folder / RUN)).run()
        entry = run.report.best or run.report.student
        assert entry is not None
        difference = entry.differences.get(run.report.stages[0].name)
        metric = entry.metrics[self.report.metric]
        known = run.report.stages[0].metrics[self.report.metric]
        least = None if difference is None or known <= 0 else (known + difference.least) / known
        predicted = speeds.of(best.trial.candidate.name, entry.name)
        self.report.winner = Winner(
            run=RUN, artifact=entry.name, predicted_ms=None if predicted is None else predicted.ms,
            ms=run.report.milliseconds(entry), speedup=entry.speedup, over_int8=entry.over_int8, metric=metric,
            rows=run.report.dataset.rows["test"], keeps=entry.retained, keeps_at_least=least,
        )  # fmt: skip
        met, words = verdict(self.target, self.report.winner)
        self._stop(words, met=met)
        return Searched(self.folder, self.report, run)

    def _stop(self, words: str, *, met: bool) -> Searched:
        self.report.verdict, self.report.met, self.report.finished = words, met, True
        self._write()
        return Searched(self.folder, self.report, None)

    def _write(self) -> None:
        self.report.seconds = self.seconds
        write(self.folder, self.report)


def ranked(trials: Sequence[EndedTrial], value: Callable[[float, float], float]) -> list[EndedTrial]:
    """Return the trials that have a metric, the best first."""
    ended = [tried for tried in trials if tried.metrics]
    return sorted(ended, key=lambda tried: value(tried.metric, tried.ms), reverse=True)


def _forms(speeds: Speeds, limit: float) -> list[FormEntry]:
    return [
        FormEntry(
            name=speed.name, form=speed.form, ms=speed.ms, mib=speed.mib, speedup=speeds.teacher_ms / speed.ms,
            fits=speed.ms <= limit, noise=speed.noise,
        )
        for speed in speeds.every
    ]  # fmt: skip


def _entry(tried: EndedTrial) -> TrialEntry:
    return TrialEntry(
        number=tried.number, candidate=tried.trial.candidate.name, way=tried.trial.way,
        learning_rate=tried.trial.learning_rate, metrics=tried.metrics, ms=tried.ms, seconds=tried.seconds,
        ended=tried.ended, failure=tried.failure,
    )  # fmt: skip
