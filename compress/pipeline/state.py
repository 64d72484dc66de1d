"""What flows through a run: the state, and the verb that changes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from compress.data.dataset import Dataset
from compress.errors import Fault
from compress.pipeline.workshop import Product, Workshop
from compress.settings import Settings, plain
from compress.tasks.base import Task


@dataclass(frozen=True)
class Model:
    """A model on disk, as transformers saves it, with its tokenizer; ``key`` says how it was made."""

    folder: Path
    key: str


@dataclass(frozen=True)
class Artifact:
    """A deployable form of the student."""

    name: str
    runtime: str  # "onnxruntime", "tensorrt", or "pytorch" for what the Auto classes load
    precision: str
    folder: Path
    key: str
    record: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""  # which of the several that one stage makes; its name ends in it
    unmeasured: str = ""  # why it cannot be run on this machine, where it cannot
    trained: Model | None = None  # what it was written from, where that is not the student


@dataclass(frozen=True)
class Record:
    """What one stage did, for the report; ``model`` is what it left behind."""

    name: str
    kind: str
    model: Model
    seconds: float
    reused: bool
    notes: tuple[str, ...] = ()
    curves: tuple[Mapping[str, float], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # more that report.json keeps of this stage, JSON-ready


@dataclass(frozen=True)
class State:
    """Everything that a stage is given and returns; nothing in it changes."""

    data: Dataset
    workshop: Workshop
    seed: int
    teacher: Model | None = None
    pretrained: str | None = None  # the folder or hub id that the teacher was fine-tuned from, where it was
    student: Model | None = None
    undistilled: Model | None = None  # the student as distillation found it
    recover: Recovery | None = None
    artifacts: tuple[Artifact, ...] = ()
    records: tuple[Record, ...] = ()
    notes: tuple[str, ...] = ()  # for the next record, from a stage that leaves none of its own
    augmentations: tuple[Mapping[str, Any], ...] = ()  # what was added to the unlabelled rows, for the report
    folder: Path | None = None  # where the run was written, when it has ended

    def with_record(self, record: Record, **changes: Any) -> State:
        """Return the state with ``record`` appended and ``changes`` made."""
        record = replace(record, notes=(*self.notes, *record.notes))
        return replace(self, records=(*self.records, record), notes=(), **changes)

    @property
    def given_teacher(self) -> Model:
        """The teacher; raises ValueError when no stage made one."""
        if self.teacher is None:
            raise ValueError("this stage needs a teacher; run Teacher first")
        return self.teacher

    @property
    def given_student(self) -> Model:
        """The student; raises ValueError when no stage made one."""
        if self.student is None:
            raise ValueError("this stage needs a student; run Student first")
        return self.student


class Recovery(Protocol):
    """Train a model again as it was distilled."""

    def __call__(
        self,
        state: State,
        start: Model,
        epochs: float,
        name: str = ...,
        learning_rate: float | None = None,
        sparsify: Any = None,
        share: float = ...,
    ) -> tuple[Product, Model]:
        """Return what came of it.

        ``learning_rate`` is another than the distillation's, of which else ``share`` is taken; ``sparsify`` says how
        weights leave meanwhile.
        """
        ...


@dataclass(kw_only=True)
class Stage(Settings):
    """One verb: a state in, a state out. Its fields are its settings."""

    gathers: ClassVar[bool] = False  # it takes the artifacts of other stages, and so runs after all of them

    def __call__(self, state: State) -> State:
        """Return the state after this stage."""
        raise NotImplementedError(type(self).__name__)

    def task_faults(self, task: Task) -> Iterator[Fault]:
        """Yield settings that do not fit the task."""
        yield from ()

    def model_faults(self, student: Any, teacher: Any) -> Iterator[Fault]:
        """Yield settings that do not fit the student's and the teacher's configurations. Does not read files."""
        yield from ()

    def origin_faults(self, student: Any, teacher: str, fine_tuned: bool, seed: int) -> Iterator[Fault]:
        """Yield why other models or texts than the recipe's cannot serve; these may be read.

        ``student`` is a configuration, ``teacher`` the folder or hub id that the teacher is loaded from, which
        is a pretrained model where it is ``fine_tuned`` in this run; data is cut and sampled with ``seed``.
        """
        yield from ()

    def gather_faults(self, others: Mapping[str, Stage]) -> Iterator[Fault]:
        """Yield why what the run's other exports and quantizations make cannot serve; no single setting is at fault."""
        yield from ()

    def made_with(self) -> Any:
        """The settings as they enter the fingerprint of what this stage makes."""
        return plain(self)
