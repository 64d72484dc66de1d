"""A recipe: every setting of a run, the check before it, and the run itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from compress.augment.base import Augmentation
from compress.benchmark.depths import Depths, depth_curve
from compress.benchmark.stage import Benchmark
from compress.data import Data, Dataset, Tweets
from compress.distill.layers import LayerTraining
from compress.distill.stage import Distill, labels_only
from compress.errors import CompressError, Fault, RecipeError
from compress.export.onnx import Onnx
from compress.files import writable
from compress.processes import refuse_several
from compress.prune.layers import PruneLayers
from compress.prune.vocabulary import PruneVocabulary
from compress.prune.weights import Method, PruneWeights
from compress.quantize.qat import QuantizationAware
from compress.run_folder import report_of, write_run
from compress.settings import Settings, all_faults
from compress.state import Artifact, Model, Record, Stage, State, Workshop
from compress.student.base import Student
from compress.student.bert import Bert
from compress.student.saved import Saved
from compress.tasks import Classification, TaskKind
from compress.teacher import Teacher
from compress.train import Training


@dataclass(kw_only=True)
class Recipe(Settings):
    """From a teacher and data to a deployable student with a report. Fields run in the order of the work."""

    recipe: str = "custom"  # its name, the first part of the run's folder
    name: str | None = None  # the run's name; default: the time it started
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
        for name in ("recipe", "name"):
            value = getattr(self, name)
            if value is not None and (not value or "/" in value or value.startswith(".")):
                yield Fault(name, value, "must be a plain name, without / and not starting with a dot")
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
    def folder(self) -> Path:
        """Where the run is written."""
        return Path(self.output) if self.output else Path("runs") / self.recipe / (self.name or _now())

    def run(self, console: Console | None = None, command: str | None = None) -> State:
        """Do everything that is not done yet, write the run's folder and return the last state.

        Raises RecipeError before any work if a setting, the data or the teacher cannot be used, and
        SeveralProcessesError where a launcher started several processes.
        ``command`` is what the report names as the way to repeat the run.
        """
        refuse_several()
        console = console or Console(stderr=True)
        started = datetime.now().astimezone()
        clock = time.perf_counter()
        recipe = replace(self, name=self.name or _now())
        data = check(recipe, say=lambda text: console.print(f"[dim]{text}[/dim]", highlight=False))
        folder = recipe.folder
        for note in data.notes:
            console.print(f"[dim]data: {note}[/dim]", highlight=False)
        workshop = Workshop(Path(recipe.cache), console)
        state = State(data=data, workshop=workshop, seed=recipe.seed)
        for title, stage in recipe.stages():
            state = _told(console, title, state, stage)
        state = _with_student_folder(state)
        twin = recipe.benchmark.labels_only and recipe.distill.epochs > 0
        label_student = recipe.label_student(state, console) if twin else None
        depths = recipe.depth_curves(state, console)
        console.print("[bold]benchmark[/bold]")
        measured = recipe.benchmark.measure(state, label_student) | ({"depths": depths} if depths else {})
        seconds = time.perf_counter() - clock
        report = report_of(recipe, state, measured, started, seconds, command)
        write_run(folder, recipe, state, report)
        return state

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


def check(recipe: Recipe, say: Callable[[str], None] = lambda _: None) -> Dataset:
    """Return the recipe's data set if the run can start; raises RecipeError with all that is wrong."""
    faults: list[Fault] = list(all_faults(recipe))
    for setting, place in (("output", recipe.folder), ("cache", Path(recipe.cache))):
        faults += _attempt(setting, partial(writable, place))
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
    if data is not None:
        for path, stage in recipe.trained():
            faults += [fault.under(path) for fault in stage.task_faults(data.task)]
        if isinstance(data.task, Classification) and len(set(data.train.known_labels.tolist())) < 2:
            faults.append(Fault("data.train_rows", len(data.train), "leaves rows of one class only", "Take more rows."))
        if not any(fault.setting.startswith("teacher") for fault in faults):
            faults += _attempt("teacher", lambda: faults.extend(_model_faults(recipe, data)))
    if faults or data is None:
        raise RecipeError(faults)
    return data


def _model_faults(recipe: Recipe, data: Dataset) -> list[Fault]:
    teacher, fine_tuned = recipe.teacher.inspect(data.task)
    who = "student" if recipe.alone else "teacher"
    faults = [fault.under("student") for fault in recipe.student.teacher_faults(teacher, fine_tuned)]
    if not faults and not any(recipe.student.faults()):
        faults += [fault.under("student") for fault in recipe.student.task_faults(data.task)]
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
        return [Fault(setting, None, str(error).rstrip("."))]
    return []


def _told(console: Console, title: str, state: State, stage: Callable[[State], State]) -> State:
    """Run a stage, saying what it is and what came of it."""
    console.print(f"[bold]{title}[/bold]")
    after = _named(stage(state), title, state)
    for record in after.records[len(state.records) :]:
        how = "taken from the cache" if record.reused else f"{record.seconds:.0f} s"
        console.print("".join(["  ", *(f"{note}; " for note in record.notes), how]), style="dim", highlight=False)
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


def _now() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S")
