"""A recipe: every setting of a run, and the order of its stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from compress.augment.base import Augmentation
from compress.benchmark.depths import Depths
from compress.benchmark.stage import Benchmark
from compress.data import Data, Tweets
from compress.distill.layers import LayerTraining
from compress.distill.stage import Distill
from compress.errors import Fault
from compress.export.onnx import Onnx
from compress.known import NOTHING, Known
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.run.place import name_faults
from compress.run.result import Run
from compress.run.work import carry_out
from compress.settings import Settings
from compress.student.base import Student
from compress.student.bert import Bert
from compress.student.saved import Saved
from compress.tasks.choice import TaskChoice
from compress.tasks.registry import task_faults
from compress.teachers.base import BaseTeacher
from compress.teachers.model import Teacher
from compress.train.trackers import tracker_faults


@dataclass(kw_only=True)
class Recipe(Settings):
    """From a teacher and data to a deployable student with a report. Fields run in the order of the work."""

    recipe: str = "custom"  # its name, the first part of the run's folder
    name: str | None = None  # the run's name; default: the next free number, as 001
    uses: list[str] = field(default_factory=list)  # your own modules, which register more to choose from
    task: TaskChoice = field(default_factory=TaskChoice)
    data: Data = field(default_factory=Tweets)
    teacher: BaseTeacher = field(default_factory=Teacher)
    augment: dict[str, Augmentation] = field(default_factory=dict)  # more rows for the teacher to label
    student: Student = field(default_factory=Bert)
    prepare: dict[str, Stage] = field(default_factory=dict)  # before distillation, in the order of their names here
    distill: Distill = field(default_factory=Distill)
    prune: dict[str, Stage] = field(default_factory=dict)  # in the order of their names here
    quantize: dict[str, Stage] = field(default_factory=dict)  # side by side
    export: dict[str, Stage] = field(default_factory=lambda: {"onnx": Onnx()})
    exit: dict[str, Stage] = field(default_factory=dict)  # the student with early exits, side by side
    max_drop: float | None = 1.0  # points of the main metric that an artifact may lose; null: any number
    benchmark: Benchmark = field(default_factory=Benchmark)
    report_to: list[str] = field(
        default_factory=list
    )  # where curves and figures go: tensorboard, mlflow, trackio, wandb
    seed: int = 13  # seed of every random choice
    output: str | None = None  # the run's folder; default: runs/<recipe>/<name>
    cache: str = "runs/.cache"  # finished work, shared by runs

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The seed and the names can be used."""
        if not 0 <= self.seed < 2**32:
            yield Fault("seed", self.seed, "must lie in [0, 4294967296)")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            yield Fault(
                "max_drop", self.max_drop, "must lie in [0, 100]: points of the main metric", "For example 1.0."
            )
        yield from name_faults(self)
        yield from tracker_faults(self.report_to)
        yield from task_faults("task", self.task.kind)
        labelled = any(loss.needs_teacher for loss in self.distill.losses.values())
        if self.augment and not labelled and not any(stage.reads_unlabelled for stage in self.prepare.values()):
            rule = "adds rows that only the teacher labels, and no loss uses its answers"
            yield Fault("augment", list(self.augment), rule, "Choose a loss that does, as soft or mse.")

    def known_to_parts(self, known: Known) -> Known:
        """All stages know each other, the seed, and whether there is a teacher at all."""
        own: dict[str, Stage] = {"teacher": self.teacher, "student": self.student, "distill": self.distill}
        for group in ("augment", "prepare", "prune", "export", "quantize", "exit"):
            own |= {f"{group}.{name}": stage for name, stage in getattr(self, group).items()}
        return replace(known, stages=own, seed=self.seed, alone=self.alone)

    @property
    def alone(self) -> bool:
        """Whether there is no teacher: a saved student is used unchanged, and is the reference of all measurements."""
        saved = isinstance(self.student, Saved) and self.teacher.is_the_model(self.student.model)
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

    def run(self, command: str | None = None, label: str = "") -> Run:
        """Do everything that is not done yet, write the run's folder and return the run.

        ``data`` may also be a path, a table or a list of rows, and ``teacher`` a loaded model with its tokenizer; see
        `compress.run.handed_over`.

        Raises RecipeError before any work if a setting, the data, the teacher or the folder cannot be used, and
        SeveralProcessesError where a launcher started several processes.
        ``command`` is what the report names as the way to repeat the run; ``label`` follows the number of a run
        without a name.
        """
        return carry_out(self, command, label)

    def stages(self) -> Iterator[tuple[str, Callable[[State], State]]]:
        """Yield the stages: teacher, augmentation, student, preparations, distill, then `after_distillation`.

        A saved student that is its own teacher stands alone.
        """
        if not self.alone:
            yield "teacher", self.teacher
        yield from self.augment.items()
        yield "student", self.student
        yield from self.prepare.items()
        yield "distill", self.distill
        yield from ((name, stage) for _, name, stage in self.after_distillation())

    def after_distillation(self) -> list[tuple[str, str, Stage]]:
        """Return (group, name, stage) of prunings, exports, quantizations and exits; what gathers artifacts is last.

        Exports are in the order of their names: in which order they are chosen changes nothing.
        """
        parts = {"prune": self.prune, "export": dict(sorted(self.export.items())), "quantize": self.quantize}
        parts |= {"exit": self.exit}
        found = [(group, name, stage) for group, stages in parts.items() for name, stage in stages.items()]
        return sorted(found, key=lambda step: step[2].gathers)

    @property
    def depths(self) -> Depths:
        """At which depths the distilled student is measured."""
        chosen = self.benchmark.depths
        if chosen is Depths.auto:
            return Depths.every_other if self.layer_drop > 0 else Depths.none
        return chosen

    def twin_without_layer_drop(self) -> Iterator[Stage]:
        """Yield the student and what trains it, so that no layer is skipped."""
        yield self.student
        for stage in (*self.prepare.values(), self.distill):
            yield replace(stage, layer_drop=0.0) if isinstance(stage, (Distill, LayerTraining)) else stage

    @property
    def layer_drop(self) -> float:
        """The highest rate of the preparations and distillation."""
        return max(stage.skipping for stage in (*self.prepare.values(), self.distill))
