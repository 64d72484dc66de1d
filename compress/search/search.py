"""Carry out a search: what needs no training first, then speeds, then trainings, then one finished run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from compress.benchmark.scores import CannotRunError, ScoredRows
from compress.benchmark.way import Way
from compress.errors import Fault, ModelError, RecipeError, StorageError
from compress.files import hash_json, storage_faults, write_text
from compress.known import Known
from compress.machine import describe
from compress.pipeline.artifact import Artifact
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.check import Checked, check, of_teacher, told
from compress.run.names import point_to_latest, reserve
from compress.run.place import alone, identity
from compress.run.recipe import Recipe
from compress.run.result import Run
from compress.runtimes.devices import CPU
from compress.runtimes.registry import RUNTIMES
from compress.search.candidates import Trial, candidates, ways
from compress.search.page import to_page
from compress.search.result import (
    FILE,
    FORM_NAMES,
    Finalist,
    FormEntry,
    FreeLunch,
    SearchReport,
    TrialEntry,
    Winner,
)
from compress.search.settings import Search, SearchTarget
from compress.search.speeds import TEACHER, Speed, Speeds, measured, own_forms
from compress.search.study import Choice, EndedTrial, Study, optuna_module
from compress.settings import all_faults, plain

PAGE = "search.html"
RUN = "run"  # the folder of the finished student's run, within the search's
RESERVED = 0.25  # share of the minutes that finalists and the finished run may take


@dataclass(frozen=True)
class Searched:
    """A finished search: its folder, what is in search.json, and the run of the student that it found."""

    folder: Path
    report: SearchReport
    run: Run | None


def search(
    base: Recipe, target: SearchTarget, settings: Search, command: str, console: Console | None = None
) -> Searched:
    """Find the student that reaches the target, or comes nearest, and run its recipe; interrupted, it resumes.

    Raises RecipeError, before any training, for settings that cannot be used and a speed that no candidate has, and
    MissingPackageError, before any work, where Optuna is not installed.
    """
    console = console or Console(stderr=True)
    refuse_faults(base, target, settings)
    optuna_module()
    base = replace(base, recipe="search")
    checked = check(replace(base, output=None, name=None), say=lambda text: _say(console, text))
    if checked.weights is None:
        raise RecipeError([Fault("teacher", None, "only answers, and a search measures speeds against its weights")])
    for line in (*told(checked.data), *map(str, checked.models)):
        _say(console, line)
    which = hash_json([identity(replace(base, name=None), checked.data.fingerprint), plain(target), plain(settings)])
    with _folder(base, which, command, target) as (folder, report):
        work = _Work(base, target, settings, checked, console, folder, report)
        return work.carry_out()


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
        self, base: Recipe, target: SearchTarget, settings: Search, checked: Checked, console: Console, folder: Path,
        report: SearchReport,
    ) -> None:  # fmt: skip
        self.base, self.target, self.settings = base, target, settings
        self.console, self.folder, self.report = console, folder, report
        self.data = checked.data
        self.started, self.before = time.monotonic(), report.seconds
        self.workshop = Workshop(base.cache_folder, console, folder)
        self.known = of_teacher(
            base.teacher.inspect(checked.data), Known(reading=True, data=checked.data, task=checked.data.task)
        )

    @property
    def seconds(self) -> float:
        """What the search has taken, in earlier processes too."""
        return self.before + time.monotonic() - self.started

    def carry_out(self) -> Searched:
        state = self.base.teacher(State.begin(data=self.data, workshop=self.workshop, seed=self.base.seed))
        scores = ScoredRows(state, state.data.validation)
        answers = scores.answers()
        if answers is None:
            raise ModelError("The teacher has no answer to some validation rows, by which a search compares students.")
        teacher = scores.metric(answers)
        task = state.data.task
        self.report.metric, self.report.teacher = task.main_metric, teacher
        self.report.validation_rows = len(state.data.validation)
        fitting, self.report.left_out = candidates(self.settings.students, self.base, self.known)
        for name, why in self.report.left_out.items():
            _say(self.console, f"{name} is left out: {why}")
        own = own_forms(state)
        if self.report.forms:  # an interrupted search keeps to what it has measured
            speeds = Speeds(tuple(Speed(form.name, form.form, form.ms, form.mib) for form in self.report.forms))
        else:
            _say(self.console, f"timing {len(fitting)} candidates with untrained weights, and the teacher", bold=True)
            speeds = measured(state, fitting, own, self.base)
        limit = self.target.most_ms(speeds.teacher_ms)
        self.report.forms = _forms(speeds, limit)
        self.report.free = list(self._free(own, speeds, limit, scores, teacher))
        self._write()
        met = next((form for form in self.report.free if form.meets), None)
        if met is not None and not self.settings.anyway:
            return self._stop(
                f"The teacher itself in {FORM_NAMES[met.form]} meets the target without any training: "
                f"{met.ms:.3g} ms, {met.keeps:.1%} of its {task.main_metric} on {self.report.validation_rows:,} "
                "validation rows. Get it with compress export, or continue: search.anyway=true.",
                met=True,
            )
        within = [candidate for candidate in fitting if speeds.fastest(candidate.name).ms <= limit]
        if not within:
            raise RecipeError([self._unreachable(speeds, [candidate.name for candidate in fitting])])
        common = {candidate.name: ways(candidate, self.base, self.known) for candidate in within}
        choices = [Choice(c, common[c.name], speeds.fastest(c.name).ms) for c in within]
        study = Study(self.folder, choices, self._value(teacher, speeds.teacher_ms), self.base.seed)
        self._try(study, state, scores)
        best = self._finals(study, state, scores, teacher, speeds.teacher_ms)
        if best is None:
            return self._stop("The time was over before any trial had ended. Give it more: search.minutes.", met=False)
        return self._finish(best, speeds)

    def _free(
        self, own: Sequence[Artifact], speeds: Speeds, limit: float, scores: ScoredRows, teacher: float
    ) -> Iterator[FreeLunch]:
        """Yield what the teacher's own deployable forms are worth on validation rows."""
        for artifact, form in zip(own, ("onnx", "dynamic"), strict=False):
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
                _say(self.console, f"the teacher as {form} does not run: {failure}")
                continue
            keeps = metric / teacher if teacher > 0 else 0.0
            fits = speed.ms <= limit and (self.target.keep is None or keeps >= self.target.keep)
            yield FreeLunch(form=form, ms=speed.ms, metric=metric, keeps=keeps, meets=fits)

    def _unreachable(self, speeds: Speeds, names: Sequence[str]) -> Fault:
        """Return the fault of a speed that no candidate has, with the nearest that there is."""
        nearest = min((speeds.fastest(name) for name in names), key=lambda speed: speed.ms, default=None)
        asked = "latency_ms" if self.target.latency_ms is not None else "speedup"
        if nearest is None:
            return Fault("search.students", self.settings.students, "none of them fits this task and teacher")
        return Fault(
            f"target.{asked}", getattr(self.target, asked), "no candidate is that fast",
            f"The fastest, {nearest.name} as {FORM_NAMES[nearest.form]}, takes {nearest.ms:.3g} ms "
            f"({speeds.teacher_ms / nearest.ms:.3g}× the teacher). Nothing was trained.",
        )  # fmt: skip

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
            _say(
                self.console,
                f"trial {study.ended + 1} of {self.settings.trials}: {trial.candidate.name}, {trial.way}, learning "
                f"rate {trial.learning_rate:.2g}, cycle {cycles} of {self.settings.cycles}",
                bold=True,
            )
            found = self._metric(trial, cycles, self.base.seed, state, scores)
            _say(self.console, f"  validation {self.report.metric} {found:.4f}")
            return found

        try:
            study.run(self.settings.trials, self.settings.cycles, metric, lambda: self._time_left(1 - RESERVED))
        finally:
            self.report.trials = [_entry(tried) for tried in study.tried()]
            self._write()

    def _metric(self, trial: Trial, cycles: int, seed: int, taught: State, scores: ScoredRows) -> float:
        """Return the main metric, on validation rows, of the student of a trial; all trials have one teacher."""
        recipe = trial.recipe(self.base, cycles, seed)
        state = taught.with_seed(seed)
        for stage in (*recipe.augment.values(), recipe.student, *recipe.prepare.values(), recipe.distill):
            state = stage(state)
        return scores.metric(scores.logits(state.given_student))

    def _finals(
        self, study: Study, state: State, scores: ScoredRows, teacher: float, teacher_ms: float
    ) -> EndedTrial | None:
        """Train the best trials with other seeds, while there is time, and return the best on average."""
        value = self._value(teacher, teacher_ms)
        ended = sorted(study.tried(), key=lambda tried: value(tried.metric, tried.ms), reverse=True)
        finalists = ended[: self.settings.finalists]
        means: list[tuple[float, EndedTrial]] = []
        for tried in finalists:
            found = [tried.metric]
            for number in range(1, self.settings.seeds):
                if not self._time_left():
                    break
                _say(self.console, f"finalist {tried.number}: seed {number + 1} of {self.settings.seeds}", bold=True)
                seed = (self.base.seed + number) % 2**32
                found.append(self._metric(tried.trial, len(tried.metrics), seed, state, scores))
            mean = sum(found) / len(found)
            means.append((value(mean, tried.ms), tried))
            self.report.finalists.append(
                Finalist(
                    number=tried.number, candidate=tried.trial.candidate.name, cycles=len(tried.metrics),
                    metrics=found, chosen=False,
                )
            )  # fmt: skip
        if not means:
            return None
        best = max(means, key=lambda mean: mean[0])[1]
        for finalist in self.report.finalists:
            finalist.chosen = finalist.number == best.number
        self._write()
        return best

    def _finish(self, best: EndedTrial, speeds: Speeds) -> Searched:
        """Run the recipe of the best trial from start to end, and say what it came to on test rows."""
        recipe = best.trial.recipe(self.base, len(best.metrics), self.base.seed)
        run = replace(recipe, name=None, output=str(self.folder / RUN)).run(self.console)
        entry = run.report.best or run.report.student
        assert entry is not None
        difference = entry.differences.get(run.report.stages[0].name)
        metric = entry.metrics[self.report.metric]
        known = run.report.stages[0].metrics[self.report.metric]
        least = None if difference is None or known <= 0 else (known + difference.least) / known
        ms = run.report.milliseconds(entry)
        fastest = speeds.fastest(best.trial.candidate.name)
        predicted = speeds.of(best.trial.candidate.name, entry.name) or fastest
        self.report.winner = Winner(
            run=RUN, artifact=entry.name, predicted_ms=predicted.ms, ms=ms, speedup=entry.speedup,
            over_int8=entry.over_int8, metric=metric, rows=run.report.dataset.rows["test"], keeps=entry.retained,
            keeps_at_least=least,
        )  # fmt: skip
        met, verdict = self._verdict(self.report.winner)
        self.report.verdict, self.report.met = verdict, met
        self.report.finished = True
        self._write()
        return Searched(self.folder, self.report, run)

    def _verdict(self, winner: Winner) -> tuple[bool, str]:
        """Return whether the target is met on test rows, and a sentence on each part of it."""
        parts: list[tuple[bool, str]] = []
        target, ms, speedup, keeps = self.target, winner.ms, winner.speedup, winner.keeps
        if target.latency_ms is not None:
            words = f"{_number(ms)} ms per row, {target.latency_ms:g} asked for"
            parts.append((ms is not None and ms <= target.latency_ms, words))
        if target.speedup is not None:
            words = f"{_number(speedup)}× as fast as the teacher, {target.speedup:g}× asked for"
            parts.append((speedup is not None and speedup >= target.speedup, words))
        if target.keep is not None:
            least = winner.keeps_at_least
            bound = "" if least is None else f" (95 % bound: at least {least:.1%})"
            words = f"{_percent(keeps)} of the teacher's metric kept{bound}, {target.keep:.1%} asked for"
            parts.append((keeps is not None and keeps >= target.keep, words))
        met = all(ok for ok, _ in parts)
        details = "; ".join(words for _, words in parts)
        kept = "" if target.keep is not None else f" It keeps {_percent(winner.keeps)} of the teacher's metric."
        what = "meets the target" if met else "comes nearest, and does not meet the target"
        return met, f"{winner.artifact} {what}: {details}, on {winner.rows:,} test rows.{kept}"

    def _stop(self, verdict: str, *, met: bool) -> Searched:
        self.report.verdict, self.report.met, self.report.finished = verdict, met, True
        self._write()
        return Searched(self.folder, self.report, None)

    def _write(self) -> None:
        self.report.seconds = self.seconds
        _write(self.folder, self.report)


def _write(folder: Path, report: SearchReport) -> None:
    with storage_faults(folder):
        write_text(folder / FILE, msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
        if report.forms:
            write_text(folder / PAGE, to_page(report))


@contextmanager
def _folder(base: Recipe, which: str, command: str, target: SearchTarget) -> Iterator[tuple[Path, SearchReport]]:
    """Hold the folder of this search: the one that is named, an unfinished one of the same settings, or a new one."""
    folder = _named(base.output, which) if base.output else _unfinished(base.parent, which) or reserve(base.parent)
    with alone(folder):
        report = SearchReport(
            command=command, identity=which, target=asdict(target), metric="", machine=describe(base.benchmark.threads)
        )
        there = _read(folder)
        if there is not None and not there.finished:
            report.seconds, report.forms = there.seconds, there.forms
        _write(folder, report)
        yield folder, report
    if not base.output:
        point_to_latest(folder)


def _named(output: str, which: str) -> Path:
    """Return the folder that was asked for, made where it is missing; raises RecipeError where it holds other work."""
    folder = Path(output).expanduser()
    there = _read(folder)
    if there is not None and there.identity != which:
        rule = "holds another search, with other settings or data"
        raise RecipeError([Fault("output", output, rule, "Name another folder.")])
    with storage_faults(folder):
        if there is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RecipeError([Fault("output", output, "is not empty, and no search", "Name another folder.")])
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unfinished(parent: Path, which: str) -> Path | None:
    """Return the folder of a search of the same settings that was interrupted."""
    return next((folder for folder, found in _searches(parent) if found.identity == which and not found.finished), None)


def _searches(parent: Path) -> Iterator[tuple[Path, SearchReport]]:
    """Yield the searches among the folders of ``parent``."""
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        if not folder.is_symlink() and (report := _read(folder)) is not None:
            yield folder, report


def _read(folder: Path) -> SearchReport | None:
    """Return what is in the search.json of a folder; None where there is none. Raises StorageError."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=SearchReport)
    except (OSError, msgspec.DecodeError) as error:
        raise StorageError(f"{path}: cannot be read: {error}. Move it away, or name another output=.") from error


def _forms(speeds: Speeds, limit: float) -> list[FormEntry]:
    return [
        FormEntry(
            name=speed.name, form=speed.form, ms=speed.ms, mib=speed.mib, speedup=speeds.teacher_ms / speed.ms,
            fits=speed.ms <= limit,
        )
        for speed in speeds.every
    ]  # fmt: skip


def _entry(tried: EndedTrial) -> TrialEntry:
    return TrialEntry(
        number=tried.number, candidate=tried.trial.candidate.name, way=tried.trial.way,
        learning_rate=tried.trial.learning_rate, metrics=tried.metrics, ms=tried.ms, seconds=tried.seconds,
        ended=tried.ended,
    )  # fmt: skip


def _number(value: float | None) -> str:
    return "an unknown number of" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.1%}"


def _say(console: Console, text: str, *, bold: bool = False) -> None:
    console.print(Text(text, style="bold" if bold else "dim"), soft_wrap=True)
