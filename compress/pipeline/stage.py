"""A stage: one verb of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from compress.errors import Fault
from compress.pipeline.model import Model
from compress.pipeline.record import NONE, Details, Record, Role
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.settings import Settings, plain
from compress.tasks.base import Task


@dataclass(kw_only=True)
class Stage(Settings):
    """One verb: a state in, a state out. Its fields are its settings."""

    gathers: ClassVar[bool] = False  # it takes the artifacts of other stages, and so runs after all of them
    role: ClassVar[Role] = Role.preparation  # what it is to the student, where it leaves a record

    def __call__(self, state: State) -> State:
        """Return the state after this stage."""
        raise NotImplementedError(type(self).__name__)

    def record(
        self,
        name: str,
        products: Sequence[Product] = (),
        *,
        model: Model | None = None,
        notes: Sequence[str] = (),
        curves: Sequence[Mapping[str, float]] = (),
        details: Details = NONE,
    ) -> Record:
        """Return the record of this stage, which took these products; ``model`` is the last one's by default.

        Without a product or a model it is that of a teacher without weights.
        """
        return Record(
            name=name,
            kind=type(self).__name__,
            role=self.role,
            model=Model.of(products[-1]) if model is None and products else model,
            seconds=sum(product.seconds for product in products),
            reused=all(product.reused for product in products),
            notes=tuple(notes),
            curves=tuple(curves),
            details=details,
        )

    def task_faults(self, task: Task) -> Iterator[Fault]:
        """Yield settings that do not fit the task."""
        yield from ()

    def model_faults(self, student: Any, teacher: Any) -> Iterator[Fault]:
        """Yield settings that do not fit the student's and the teacher's configurations. Does not read files."""
        yield from ()

    def weight_faults(self) -> Iterator[Fault]:
        """Yield settings that need a teacher's weights, in a run whose teacher only answers."""
        yield from ()

    def origin_faults(self, student: Any, teacher: str, fine_tuned: bool, seed: int) -> Iterator[Fault]:
        """Yield why other models or texts than the recipe's cannot be used; these may be read.

        ``student`` is a configuration, ``teacher`` the folder or hub id that the teacher is loaded from, which
        is a pretrained model where it is ``fine_tuned`` in this run; data is cut and sampled with ``seed``.
        """
        yield from ()

    def gather_faults(self, others: Mapping[str, Stage]) -> Iterator[Fault]:
        """Yield why what the run's other exports and quantizations make cannot be used; no single setting is wrong."""
        yield from ()

    def gentler(self, max_drop: float) -> Iterator[tuple[str, Stage]]:
        """Yield forms, with what to call them, that lose less than what this stage makes: the fastest first.

        They are tried in turn where its artifact loses more of the main metric than ``max_drop``, a share of 1.
        """
        yield from ()

    def made_with(self) -> Any:
        """Return the settings as they enter the fingerprint of what this stage makes."""
        return plain(self)
