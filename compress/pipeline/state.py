"""What flows through a run: the models, artifacts and records that its stages have made so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from compress.data.dataset import Dataset
from compress.pipeline.answers import Answers, OfModel
from compress.pipeline.artifact import Artifact, Rejected
from compress.pipeline.context import Context
from compress.pipeline.model import Model
from compress.pipeline.record import Augmented, Record
from compress.pipeline.workshop import Product, Workshop


@dataclass(frozen=True)
class State:
    """What the stages of a run have made so far, in a context that none of them changes."""

    context: Context
    data: Dataset  # labels numbered as the teacher numbers them, and with the rows that augmentations added
    answers: Answers | None = None  # of a teacher that has no weights
    teacher: Model | None = None  # its weights, where it has any
    pretrained: str | None = None  # the folder or hub id that the teacher was fine-tuned from, where it was
    student: Model | None = None
    undistilled: Model | None = None  # the student as distillation found it
    recovery: Recovery | None = None  # how to train it again as it was distilled
    artifacts: tuple[Artifact, ...] = ()
    rejected: tuple[Rejected, ...] = ()  # that lose more than they may
    skipped: tuple[str, ...] = ()  # what was not made because of that, as sentences
    untrained: tuple[Artifact, ...] = ()  # the teacher itself in deployable forms, which a student has to beat
    records: tuple[Record, ...] = ()
    notes: tuple[str, ...] = ()  # for the next record, from a stage that leaves none of its own
    augmentations: tuple[Augmented, ...] = ()
    folder: Path | None = None  # where the run was written, when it has ended

    @classmethod
    def begin(cls, data: Dataset, workshop: Workshop, seed: int, **known: Any) -> State:
        """Return the state before the first stage; ``known`` are fields that are there already."""
        return cls(Context(data, workshop, seed), data, **known)

    @property
    def workshop(self) -> Workshop:
        """Where work is done."""
        return self.context.workshop

    @property
    def seed(self) -> int:
        """What random choices start from."""
        return self.context.seed

    def with_seed(self, seed: int) -> State:
        """Return the same state in which random choices start from another seed, modulo NumPy's largest."""
        return replace(self, context=replace(self.context, seed=seed % 2**32))

    def with_teacher(self, record: Record, answers: Answers | None = None) -> State:
        """Return the state with the teacher that a stage left behind, or with what a teacher without weights says."""
        return replace(self.with_record(record), teacher=record.model, answers=answers)

    def with_student(self, record: Record, student: Model | None = None) -> State:
        """Return the state with the student that a stage left behind; ``student`` where that is not the record's."""
        return replace(self.with_record(record), student=student or record.model)

    def with_record(self, record: Record) -> State:
        """Return the state with a record of what was done, which takes the notes that wait for it."""
        record = replace(record, notes=(*self.notes, *record.notes))
        return replace(self, records=(*self.records, record), notes=())

    def with_artifacts(self, *artifacts: Artifact) -> State:
        """Return the state with more artifacts."""
        return replace(self, artifacts=(*self.artifacts, *artifacts))

    @property
    def given_answers(self) -> Answers:
        """The teacher's answers; raises ValueError when there is no teacher."""
        return self.answers or OfModel(self.given_teacher)

    @property
    def given_teacher(self) -> Model:
        """The teacher's weights; raises ValueError when no stage left any."""
        if self.teacher is None:
            raise ValueError("this stage needs the weights of a teacher; run Teacher first")
        return self.teacher

    @property
    def given_student(self) -> Model:
        """The student; raises ValueError when no stage made one."""
        if self.student is None:
            raise ValueError("this stage needs a student; run Student first")
        return self.student

    @property
    def given_recovery(self) -> Recovery:
        """The way to train again; raises ValueError when nothing was distilled."""
        if self.recovery is None:
            raise ValueError("this stage trains as the student was distilled; run Distill first")
        return self.recovery


class Recovery(Protocol):
    """Train a model again as it was distilled."""

    def train(
        self,
        state: State,
        start: Model,
        epochs: float,
        *,
        name: str = ...,
        learning_rate: float | None = None,
        share: float = ...,
        sparsify: Any = None,
        comparable: bool = True,
    ) -> Product:
        """Return ``start``, trained for ``epochs``.

        ``learning_rate`` overrides the distillation's; otherwise that rate times ``share`` is used. ``sparsify`` says
        how weights are set to zero meanwhile, ``comparable`` that the better of ``start`` and what it becomes goes on.
        """
        ...
