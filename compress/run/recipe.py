"""A recipe: every setting of a run, the check before it, and the run itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from compress.augment.base import Augmentation
from compress.benchmark.depths import Depths, depth_curve
from compress.benchmark.stage import Benchmark
from compress.data import Data, Dataset, Tweets
from compress.distill.layers import LayerTraining
from compress.distill.stage import Distill, labels_only
from compress.errors import CompressError, DataError, Fault, RecipeError
from compress.export.onnx import Onnx
from compress.models.loading import load_tokenizer
from compress.models.row_lengths import with_cuts
from compress.pipeline.state import Artifact, Model, Record, Stage, State
from compress.pipeline.workshop import Workshop
from compress.processes import refuse_several
from compress.prune.layers import PruneLayers
from compress.prune.vocabulary import PruneVocabulary
from compress.prune.weights import Method, PruneWeights
from compress.quantize.qat import QuantizationAware
from compress.run.folder import repeat, report_of, write_run
from compress.run.names import point_to_latest
from compress.run.place import claimed, identity, lasting, name_faults, other_run, place_faults
from compress.settings import Settings, all_faults
from compress.student.base import Student
from compress.student.bert import Bert
from compress.student.saved import Saved
from compress.tasks.base import TaskKind
from compress.tasks.classification import Classification
from compress.teachers.examination import examine
from compress.teachers.model import Teacher
from compress.train import Training


@dataclass(kw_only=True)
class Recipe(Settings):
    """From a teacher and data to a deployable student with a report. Fields run in the order of the work."""

    recipe: str = "custom"  # its name, the first part of the run's folder
    name: str | None = None  # the run's name; default: the next free number, as 001
    task: TaskKind = TaskKind.auto  # auto: by the labels; classification or regression
    data: Data = field(default_factory=Tweets)
    teacher: Teacher = field(default_factory=Teacher)
    augment: dict[str, Augmentation] = field(default_factory=dict)  # more rows for the teacher to label
    student: Student = field(default_factory=Bert)
    prepare: dict[str, Stage] = field(default_factory=dict)  # training before distillation, in the order of their names
    distill: Distill = field(default_factory=Distill)
    prune: dict[str, Stage] = field(default_factory=dict)  # in the order of their names here
    quantize: dict[str, Stage] = field(default_factory=dict)  # side by side
    export: dict[str, Stage] = field(default_factory=lambda: {"onnx": Onnx()})
    benchmark: Benchmark = field(default_factory=Benchmark)
    seed: int = 13  # of every random choice
    output: str | None = None  # the run's folder; default: runs/<recipe>/<name>
    cache: str = "runs/.cache"  # finished work, shared by runs

    def faults(self) -> Iterator[Fault]:
        """The seed and the names can be used."""
        if not 0 <= self.seed < 2**32:
            yield Fault("seed", self.seed, "must lie in [0, 4294967296)")
        yield from name_faults(self)
        labelled = any(loss.needs_teacher for loss in self.distill.losses.values())
        trainings = [stage for stage in self.prepare.values() if isinstance(stage, Training)]
        if self.augment and not labelled and not any(stage.reads_unlabelled for stage in trainings):
            rule = "adds rows that only the teacher labels, and no loss asks it"
            yield Fault("augment", list(self.augment), rule, "Choose a loss that does, as soft or mse.")
        if self.distill.epochs == 0:
            if not isinstance(self.student, Saved):
                yield Fault(
                    "distill.epochs", 0, "leaves the student untrained", "Choose student=saved, or set it above 0."
                )
            if self.benchmark.depths not in (Depths.auto, Depths.none):
                rule = "cuts the student that was distilled, and distill.epochs = 0 distils none"
                yield Fault("benchmark.depths", self.benchmark.depths.value, rule, "Set it to none.")
        yield from _weights_faults(self.prune)
        if self.benchmark.depths_twin and not self._drops_layers:
            rule = "has no other to be the twin of: no layer is dropped in training"
            yield Fault("benchmark.depths_twin", True, rule, "Set distill.layer_drop, for example to 0.2.")
        made = {**self.export, **self.quantize}
        makers = {name: stage for name, stage in made.items() if not stage.gathers}
        for group, name, stage in self._after_distillation():
            for fault in stage.gather_faults(makers):
                yield fault.under(f"{group}.{name}") if fault.setting else replace(fault, setting=f"{group}.{name}")

    @property
    def alone(self) -> bool:
        """Whether there is no teacher: a saved student is taken as it is, and all is measured against it."""
        saved = isinstance(self.student, Saved) and self.student.model == self.teacher.model
        return saved and self.distill.epochs == 0

    @property
    def parent(self) -> Path:
        """Where runs of this recipe are written that name no folder."""
        return Path("runs") / self.recipe

    @property
    def folder(self) -> Path | None:
        """Where the run is written; None for one without a name, which is given a number when it starts."""
        if self.output:
            return Path(self.output).expanduser()
        return self.parent / self.name if self.name else None

    @property
    def cache_folder(self) -> Path:
        """Where finished work is kept."""
        return Path(self.cache).expanduser()

    def run(self, console: Console | None = None, command: str | None = None, label: str = "") -> State:
        """Do everything that is not done yet, write the run's folder and return the last state.

        Raises RecipeError before any work if a setting, the data, the teacher or the folder cannot be used, and
        SeveralProcessesError where a launcher started several processes.
        ``command`` is what the report names as the way to repeat the run; ``label`` follows the number of a run
        without a name.
        """
        refuse_several()
        console = console or Console(stderr=True)
        started = datetime.now().astimezone()
        clock = time.perf_counter()
        recipe: Recipe = lasting(self)
        checked = check(recipe, say=lambda text: console.print(Text(text, style="dim")))
        for line in (*told(checked.data), *map(str, checked.models)):
            console.print(Text(line, style="dim"), soft_wrap=True)
        run = identity(recipe, checked.data.fingerprint)
        with claimed(recipe, run, label) as folder:
            recipe = replace(recipe, name=self.name or folder.resolve().name)
            state, measured = recipe.work(checked, console)
            seconds = time.perf_counter() - clock
            report = report_of(recipe, state, measured, started, seconds, command or repeat(folder))
            write_run(folder, run, recipe, state, report)
        if not recipe.output and (note := point_to_latest(folder)):
            console.print(Text(note, style="dim"))
        return replace(state, folder=folder)

    def work(self, checked: Checked, console: Console) -> tuple[State, dict[str, Any]]:
        """Run all stages, measure, and return the last state and the measurements."""
        answers = tuple(f"tried before work: {'; '.join(tried.answers)}" for tried in checked.models if tried.answers)
        state = State(data=checked.data, workshop=Workshop(self.cache_folder, console), seed=self.seed, notes=answers)
        for title, stage in self.stages():
            state = _told(console, title, state, stage)
        state = _with_student_folder(state)
        twin = self.benchmark.labels_only and self.distill.epochs > 0
        label_student = self.label_student(state, console) if twin else None
        depths = self.depth_curves(state, console)
        console.print("[bold]benchmark[/bold]")
        return state, self.benchmark.measure(state, label_student) | ({"depths": depths} if depths else {})

    def stages(self) -> Iterator[tuple[str, Callable[[State], State]]]:
        """Yield the stages: teacher, augmentation, student, preparations, distill, prunings, exports, quantizations.

        A saved student that is its own teacher stands alone.
        """
        if not self.alone:
            yield "teacher", self.teacher
        yield from self.augment.items()
        yield "student", self.student
        yield from self.prepare.items()
        yield "distill", self.distill
        yield from ((name, stage) for _, name, stage in self._after_distillation())

    def trained(self) -> Iterator[tuple[str, Stage]]:
        """Yield what changes or takes the student after it was built, by its path, in the order of the work."""
        yield from ((f"prepare.{name}", stage) for name, stage in self.prepare.items())
        if self.distill.epochs or self.prune or any(isinstance(s, QuantizationAware) for s in self.quantize.values()):
            yield "distill", self.distill
        yield from ((f"{group}.{name}", stage) for group, name, stage in self._after_distillation())

    def _after_distillation(self) -> list[tuple[str, str, Stage]]:
        """Return (group, name, stage) of prunings, exports and quantizations; what gathers artifacts is last."""
        groups = ("prune", "export", "quantize")
        found = [(group, name, stage) for group in groups for name, stage in getattr(self, group).items()]
        return sorted(found, key=lambda one: one[2].gathers)

    def label_student(self, state: State, console: Console) -> Record:
        """Train the distilled student's twin on labels alone."""
        console.print("[bold]baseline: the same student, labels alone[/bold]")
        start = self.student(state).given_student
        steps = [-(-len(rows) // self.distill.batch_size) for rows in (state.data.transfer, state.data.train)]
        epochs = self.distill.epochs * steps[0] / steps[1]  # as many steps
        product, model = labels_only(self.distill).train(state, start, epochs, "labels_only")
        return Record(
            "labels_only", "Distill", model, product.seconds, product.reused, (), tuple(product.record["curves"])
        )

    def depth_curves(self, state: State, console: Console) -> list[dict[str, Any]]:
        """Measure the distilled student, before any pruning, at every depth; and its twin, where that is asked for."""
        order = self.benchmark.depths
        if order is Depths.auto:
            order = Depths.every_other if self._drops_layers else Depths.none
        if order is Depths.none:
            return []
        console.print("[bold]the distilled student at every depth[/bold]")
        curves = [depth_curve(state, _distilled(state), order, "distill", self._layer_drop)]
        if self.benchmark.depths_twin:
            console.print("[bold]its twin, trained without LayerDrop[/bold]")
            twin = replace(state, student=None, records=(), notes=())
            for stage in (self.student, *map(_without_layer_drop, (*self.prepare.values(), self.distill))):
                twin = stage(twin)
            curves.append(depth_curve(state, _distilled(twin), order, "twin", 0.0))
        return curves

    @property
    def _drops_layers(self) -> bool:
        return self._layer_drop > 0

    @property
    def _layer_drop(self) -> float:
        """The highest rate of the preparations and distillation."""
        return max(_layer_drop(stage) for stage in (*self.prepare.values(), self.distill))


def _weights_faults(prune: Mapping[str, Stage]) -> Iterator[Fault]:
    """Yield where other prunings would spoil what the pruning of weights is, or the weights it goes back to."""
    for place, (name, stage) in enumerate(prune.items(), 1):
        if isinstance(stage, PruneWeights) and place < len(prune):
            rule = "must come last: what is removed after it changes the share of zeros and their pattern"
            yield Fault(f"prune.{name}", list(prune), rule, f"Put {name} at the end of prune=[…].")
        elif isinstance(stage, PruneWeights) and stage.method is Method.lottery and place > 1:
            rule = "goes back to weights from before distillation, which the other prunings have not pruned"
            yield Fault(f"prune.{name}.method", "lottery", rule, f"Use prune=[{name}], or another method.")
        elif isinstance(stage, PruneWeights) and stage.pattern != "none":
            harmless = (PruneLayers, PruneWeights, *(() if stage.embeddings else (PruneVocabulary,)))
            others = [one for one, part in prune.items() if not isinstance(part, harmless)]
            if others:
                rule = f"needs sizes that it divides, and {others[0]} may leave others"
                yield Fault(f"prune.{name}.pattern", stage.pattern, rule, f"Leave {others[0]} out, or set it to none.")


@dataclass(frozen=True)
class Checked:
    """What a check before work found: the data set, and a line on each model that is used or trained."""

    data: Dataset
    models: tuple[Tried, ...]


@dataclass(frozen=True)
class Tried:
    """A model that a run takes or trains: which of the two and why, and what it answered on some rows."""

    line: str
    answers: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join((self.line, *self.answers))


def check(recipe: Recipe, say: Callable[[str], None] = lambda _: None) -> Checked:
    """Return what is known of a run that can start; raises RecipeError with all that is wrong.

    Finished models are tried on some rows; what they answer is kept in the cache.
    """
    faults: list[Fault] = list(all_faults(recipe))
    if not any(name_faults(recipe)):
        faults += place_faults(recipe)
    for name, augmentation in recipe.augment.items():
        if not any(augmentation.faults()):
            faults += _attempt(f"augment.{name}", augmentation.look)
    data: Dataset | None = None
    if not any(fault.setting.startswith("data") for fault in faults):
        say("reading the data")

        def load() -> None:
            nonlocal data
            data = recipe.data.load(recipe.task, recipe.seed)

        faults += _attempt("data", load)
    models: list[Tried] = []
    if data is not None:
        for name, augmentation in recipe.augment.items():
            faults += [replace(f, setting=f"augment.{name}{f.setting}") for f in augmentation.data_faults(data)]
        faults += other_run(recipe, identity(recipe, data.fingerprint))
        for path, stage in recipe.trained():
            faults += [fault.under(path) for fault in stage.task_faults(data.task)]
        if isinstance(data.task, Classification) and len(set(data.train.known_labels.tolist())) < 2:
            faults.append(Fault("data.train_rows", len(data.train), "leaves rows of one class only", "Take more rows."))
        if not any(fault.setting.startswith("teacher") for fault in faults):
            faults += _attempt("teacher", lambda: faults.extend(_model_faults(recipe, data)))
        if not faults:
            say("trying the models on some rows")
            faults += _attempt("teacher", lambda: models.extend(_tried(recipe, data)))
    if faults or data is None:
        raise RecipeError(faults)
    teacher = recipe.teacher
    tokenizer = load_tokenizer(teacher.source(), trust_remote_code=teacher.trust_remote_code)
    return Checked(with_cuts(data, tokenizer, teacher.max_tokens), tuple(models))


def told(data: Dataset) -> list[str]:
    """Return the block that a run begins with: how the rows were read, and what must be known of them."""
    facts = [] if data.summary is None else list(data.summary.facts())
    return [f"data: {data.name}", *(f"  {what}: {words}" for what, words in facts), *(f"  {n}" for n in data.notes)]


def _tried(recipe: Recipe, data: Dataset) -> Iterator[Tried]:
    """Yield the teacher's models and a saved student, tried on some rows where finished; raises ModelError."""
    workshop = Workshop(recipe.cache_folder)
    inspection = recipe.teacher.inspect(data)
    lines = dict(zip((member.name for member in inspection.members), inspection.lines, strict=True))
    for subject in recipe.teacher.subjects(data):
        yield Tried(f"teacher: {lines[subject.name]}", tuple(examine(subject, workshop)))
    if isinstance(recipe.student, Saved) and not recipe.alone:
        teacher = recipe.teacher
        subject = recipe.student.subject(inspection.data, teacher.max_tokens, teacher.max_unknown)
        yield Tried(f"student: {subject.name} is used as it is", tuple(examine(subject, workshop)))


def _model_faults(recipe: Recipe, given: Dataset) -> list[Fault]:
    inspection = recipe.teacher.inspect(given)
    teacher, fine_tuned, data = inspection.config, inspection.must_train, inspection.data
    who = "student" if recipe.alone else "teacher"
    faults = [fault.under("student") for fault in recipe.student.teacher_faults(teacher, fine_tuned)]
    if not faults and not any(recipe.student.faults()):
        faults += [fault.under("student") for fault in recipe.student.task_faults(data.task)]
        if isinstance(recipe.student, Saved) and not recipe.alone:
            faults += [fault.under("student") for fault in recipe.student.label_faults(data.task)]
    faults += [fault.under("benchmark") for fault in recipe.benchmark.model_faults(recipe.teacher.most_tokens(), who)]
    if faults or any(recipe.student.faults()):
        return faults
    student = recipe.student.config(teacher)
    faults += [fault.under("benchmark") for fault in recipe.benchmark.student_faults(student)]
    for path, stage in recipe.trained():
        found = list(stage.model_faults(student, teacher))
        found += stage.origin_faults(student, recipe.teacher.source(), fine_tuned, recipe.seed)
        faults += [fault.under(path) for fault in found]
    return faults


def _attempt(setting: str, action: Callable[[], object]) -> list[Fault]:
    try:
        action()
    except CompressError as error:
        of_rows = isinstance(error, DataError) and setting == "teacher"  # a label that no model knows
        return [Fault("data" if of_rows else setting, None, str(error).rstrip("."))]
    return []


def _told(console: Console, title: str, state: State, stage: Callable[[State], State]) -> State:
    """Run a stage, saying what it is and what came of it."""
    console.print(Text(title, style="bold"))
    after = _named(stage(state), title, state)
    for record in after.records[len(state.records) :]:
        how = "taken from the cache" if record.reused else f"{record.seconds:.0f} s"
        console.print(Text("".join(["  ", *(f"{note}; " for note in record.notes), how]), style="dim"))
    return after


def _named(after: State, title: str, before: State) -> State:
    """Give what a stage added the name that the recipe has for it, so that two stages of a kind can be told apart."""
    records, artifacts = len(before.records), len(before.artifacts)
    new = enumerate(after.records[records:], start=1)
    return replace(
        after,
        records=(*after.records[:records], *(replace(r, name=title if i == 1 else f"{title}-{i}") for i, r in new)),
        artifacts=(
            *after.artifacts[:artifacts],
            *(replace(a, name=f"{title}-{a.variant}" if a.variant else title) for a in after.artifacts[artifacts:]),
        ),
    )


def _with_student_folder(state: State) -> State:
    student = state.given_student
    artifact = Artifact("student", "pytorch", "fp32", student.folder, student.key)
    return replace(state, artifacts=(artifact, *state.artifacts))


def _distilled(state: State) -> Model:
    """Return the model after distillation, the last generation's."""
    return [record.model for record in state.records if record.kind == "Distill"][-1]


def _layer_drop(stage: Stage) -> float:
    """Return the rate at which a stage skips layers; 0 for one that cannot."""
    return stage.layer_drop if isinstance(stage, (Distill, LayerTraining)) else 0.0


def _without_layer_drop(stage: Stage) -> Stage:
    """Return the same stage that skips no layer."""
    return replace(stage, layer_drop=0.0) if isinstance(stage, (Distill, LayerTraining)) else stage
