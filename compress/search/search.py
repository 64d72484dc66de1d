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
from compress.prune.costs import shape_of
from compress.prune.shape import PruneToShape
from compress.run.check import Checked, check, of_teacher, told
from compress.run.place import identity
from compress.run.recipe import Recipe
from compress.run.result import Run, load
from compress.runtimes.devices import CPU
from compress.runtimes.registry import RUNTIMES
from compress.search.candidates import Candidate, candidates, of_shape, rows, stems, ways
from compress.search.folder import RUN, held, write
from compress.search.pace import CycleTimes, Ending, Measuring
from compress.search.result import (
    FORM_NAMES,
    Finalist,
    FinishedForm,
    FormEntry,
    FreeLunch,
    SearchReport,
    ShapeEntry,
    TrialEntry,
    Winner,
)
from compress.search.settings import Search, SearchTarget
from compress.search.shapes import Shapes, wanted_shares
from compress.search.shapes import seconds as shape_seconds
from compress.search.speeds import FORMS, TEACHER, Exported, Speed, Speeds, exported, measured, own_forms
from compress.search.study import Choice, EndedTrial, Study, optuna_module
from compress.search.trainings import Goal, Trainings, ranked
from compress.search.verdict import unreachable, verdict
from compress.search.workers import Job, training, trying
from compress.settings import all_faults, plain
from compress.teachers.standing_in import with_answers_as_labels
from compress.telling import Remark, StageBegan, say, tell, warn

SHAPING = 0.15  # most of the minutes that shapes may take
NEARLY = 1.3  # times the latency that is asked for within which a shape is sought again, a little smaller


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
    tried = {name: value for name, value in plain(settings).items() if name != "workers"}
    which = hash_json([identity(replace(base, name=None), checked.data.fingerprint), plain(target), tried])
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
        self, base: Recipe, target: SearchTarget, settings: Search, checked: Checked, folder: Path,
        report: SearchReport,
    ) -> None:  # fmt: skip
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
        trainings = self._trainings(state, within, fitting, speeds, teacher)
        study = trainings.study()
        self._try(study, trainings)
        best = self._finals(study, trainings)
        if best is None:
            return self._stop(self._nothing(study, trainings.ending), met=False)
        self._compare(study, trainings, own, speeds)
        return self._finish(best, speeds)

    def _speeds(self, state: State, own: Sequence[Artifact]) -> tuple[list[Candidate], Speeds]:
        """Return the candidates that have a speed, and all speeds; an interrupted search keeps to what it measured."""
        fitting, left_out = candidates(self.settings.students, self.base, self.known)
        if self.report.forms:
            left_out |= self.report.left_out
            fitting += [of_shape(shape.heads, shape.units) for shape in self.report.shapes.values()]
            speeds = Speeds(tuple(Speed(f.name, f.form, f.ms, f.mib, f.noise) for f in self.report.forms))
        else:
            started = time.monotonic()
            tell(StageBegan(stage=f"timing {len(fitting)} candidates with untrained weights, and the teacher"))
            made = exported({candidate.name: candidate.untrained(state) for candidate in fitting})
            left_out |= made.failures
            speeds = measured(state, made.forms, own, self.base)
            if "shaped" in self.settings.students:
                shaped, speeds, failures = self._shaped(state, own, speeds)
                fitting, left_out = fitting + shaped, left_out | failures
            self.report.timing_seconds = time.monotonic() - started
        self.report.left_out = left_out
        for name, why in left_out.items():
            say(f"{name} is left out: {why}")
        return [candidate for candidate in fitting if candidate.name not in left_out], speeds

    def _shaped(
        self, state: State, own: Sequence[Artifact], speeds: Speeds
    ) -> tuple[list[Candidate], Speeds, dict[str, str]]:
        """Return candidates shaped for the speed, all speeds with theirs, and why there are none, by name.

        Where the one that comes nearest takes a little longer than is asked for, a smaller one is sought as well.
        """
        shapes = Shapes(state, self.base.benchmark.threads)
        if reason := shapes.misfit(replace(self.known, student=self.known.teacher)):
            return [], speeds, {"shaped": reason}
        if self.settings.minutes is not None:
            forms = speeds.by_form(TEACHER)
            ms = (forms["eager"] + forms.get("onnx", forms["eager"])) / 2  # some of it is PyTorch's, some of it is not
            wanted = shape_seconds(shape_of(self.known.teacher), ms)
            if wanted > SHAPING * 60 * self.settings.minutes:
                why = f"finding shapes takes about {wanted / 60:.1f} of the {self.settings.minutes:g} search.minutes."
                return [], speeds, {"shaped": why}
        limit, fastest = self.target.most_ms(speeds.teacher_ms), speeds.fastest(TEACHER).ms
        shares = wanted_shares(limit, fastest)
        tell(StageBegan(stage="finding shapes for the speed: heads and units by layer"))
        found: dict[str, Candidate] = {}
        failures: dict[str, str] = {}
        for _ in range(2):
            new = {shape.name: (share, shape) for share, shape in shapes.for_shares(shares)}
            new = {name: made for name, made in new.items() if name not in found}
            if not new:
                break
            made = exported({name: shape.untrained(state) for name, (_, shape) in new.items()})
            found |= {name: shape for name, (_, shape) in new.items()}
            failures |= made.failures
            speeds = speeds.and_later(measured(state, made.forms, own, self.base))
            slower = {name: speeds.fastest(name).ms / limit for name in made.forms}
            shares = [new[name][0] / times for name, times in slower.items() if 1 < times < NEARLY]
        self.report.shapes = {
            name: ShapeEntry(heads=shape.cut["shape"].heads, units=shape.cut["shape"].units)
            for name, shape in found.items()
            if isinstance(shape.cut["shape"], PruneToShape)
        }
        return list(found.values()), speeds, failures

    def _trainings(
        self, state: State, within: Sequence[Candidate], timed: Sequence[Candidate], speeds: Speeds, teacher: float
    ) -> Trainings:
        """Return what all trials have in common."""
        learning = rows(self.base, self.known)
        choices = [
            Choice(c, ways(c, self.base, self.known), speeds.fastest(c.name).ms, learning) for c in within
        ]  # fmt: skip
        data, settings = state.data, self.settings
        forms = {name: speeds.by_form(name) for name in (TEACHER, *(candidate.name for candidate in within))}
        slowest = max((c.name for c in within), key=lambda name: sum(forms[name].values()))
        lengths = ScoredRows(state, data.validation).reader(state.given_teacher.folder).tokens.lengths
        measuring = Measuring(self.base.benchmark, forms[TEACHER], forms[slowest], float(lengths.mean()))
        pace = CycleTimes(
            {name: max(ms for form, ms in own.items() if form != "eager") for name, own in forms.items()},
            len(data.train), len(data.transfer),
        )  # fmt: skip
        ending = Ending(
            pace, settings.finalists, settings.seeds, self.base.benchmark.labels_only, settings.workers,
            self.report.timing_seconds / (1 + len(timed)), measuring.seconds(len(data.test)),
        )  # fmt: skip
        needed = None if self.target.of_speed or self.target.keep is None else self.target.keep * teacher
        left = None if settings.minutes is None else self.started + 60 * settings.minutes - self.before
        return Trainings(
            self.folder, self.base, settings, state, choices, Goal(needed, speeds.teacher_ms), ending, left
        )

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

    def _try(self, study: Study, trainings: Trainings) -> None:
        def tell() -> None:
            self.report.trials = [_entry(tried) for tried in study.tried()]
            self._write()

        try:
            with trying(trainings, self.settings.workers - 1, self._say):
                trainings.try_all(study, self._say, tell)
        finally:
            tell()

    def _finals(self, study: Study, trainings: Trainings) -> EndedTrial | None:
        """Train the best trials with other seeds, as far as there is time, and return the best on average."""
        finalists = ranked(study.tried(), trainings.goal)[: self.settings.finalists]
        jobs: dict[int, list[Job]] = {tried.number: [] for tried in finalists}
        for number in range(1, self.settings.seeds):
            for tried in finalists:
                if trainings.final_fits(tried, finalists, 1 + sum(map(len, jobs.values()))):
                    seed = (self.base.seed + number) % 2**32
                    jobs[tried.number].append((tried.trial, len(tried.metrics), seed))
        every = [job for own in jobs.values() for job in own]
        workers = self.settings.workers
        with training(trainings, every, workers - 1, self._say):  # what they make is waited for last
            places = sorted(range(len(every)), key=lambda place: place % workers)
            metrics = {place: trainings.after(*every[place], self._say).metric for place in places}
        found_of = iter(sorted(metrics.items()))
        means: list[tuple[float, EndedTrial]] = []
        self.report.finalists = []
        for tried in finalists:
            found = [tried.metric, *(next(found_of)[1] for _ in jobs[tried.number])]
            means.append((trainings.goal.value(sum(found) / len(found), tried.ms), tried))
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

    def _say(self, text: str) -> None:
        tell(Remark(message=text) if text.startswith(" ") else StageBegan(stage=text))

    def _nothing(self, study: Study, ending: Ending) -> str:
        """Return why no trial can be chosen."""
        if failures := [tried.failure for tried in study.tried() if tried.failure]:
            return f"No trial could be trained. The first: {failures[0]}"
        took, more = (spent / 60 for spent in (self.seconds, ending.seconds([])))
        return (
            f"There was no time for any trial: {took:.1f} minutes had gone by, and what follows the trials takes at "
            f"least {more:.1f}. Give it more: search.minutes."
        )

    def _compare(self, study: Study, trainings: Trainings, own: Sequence[Artifact], speeds: Speeds) -> None:
        """Time what was trained of each candidate, and set it beside what was foretold."""
        best = {tried.trial.candidate.name: tried for tried in reversed(ranked(study.tried(), trainings.goal))}
        tell(StageBegan(stage=f"timing {len(best)} trained candidates"))
        made: Exported = exported(
            {name: trainings.trained(t.trial, len(t.metrics), self.base.seed) for name, t in best.items()}
        )
        now = measured(trainings.taught, made.forms, own, self.base)
        self.report.compared = [
            FinishedForm(
                name=speed.name, form=speed.form, predicted_ms=before.ms, ms=speed.ms, noise=speed.noise,
                off=speed.ms / before.ms - 1,
            )
            for speed in now.every
            if speed.name in best and (before := speeds.of(speed.name, speed.form)) is not None
        ]  # fmt: skip
        then = speeds.by_form(TEACHER)
        self.report.drift = {form: ms / then[form] for form, ms in now.by_form(TEACHER).items() if form in then}
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
            run=RUN, student=best.trial.candidate.name, artifact=entry.name,
            predicted_ms=None if predicted is None else predicted.ms,
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
        number=tried.number, candidate=tried.trial.candidate.name, way=tried.trial.way, rows=tried.trial.rows,
        learning_rate=tried.trial.learning_rate, metrics=tried.metrics, ms=tried.ms, seconds=tried.seconds,
        ended=tried.ended, failure=tried.failure,
    )  # fmt: skip
