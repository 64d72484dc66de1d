"""A stage: one verb of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from compress.known import Known
from compress.pipeline.artifact import Artifact, Cost
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.record import NONE, Details, Record, Role
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.settings import Settings, plain


@dataclass(kw_only=True)
class Stage(Settings):
    """One verb: a state in, a state out. Its fields are its settings."""

    gathers: ClassVar[bool] = False  # it takes the artifacts of other stages, and so runs after all of them
    role: ClassVar[Role] = Role.preparation  # what it is to the student, where it leaves a record
    reads_unlabelled: ClassVar[bool] = False  # whether it also learns from rows that only the teacher labels
    recovers: ClassVar[bool] = False  # it trains the student again as it was distilled

    @property
    def skipping(self) -> float:
        """The rate at which layers of the student are skipped while it trains; 0 where they never are."""
        return 0.0

    def __call__(self, state: State) -> State:
        """Return the state after this stage."""
        raise NotImplementedError(type(self).__name__)

    def plan(self, plan: Plan) -> Plan:
        """Return the plan with what this stage will train, and what is known of a run after it."""
        return plan

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

    def gentler(self, max_drop: float) -> Iterator[tuple[str, Stage]]:
        """Yield forms, with what to call them, that lose less than what this stage makes: the fastest first.

        They are tried in turn where its artifact loses more of the main metric than ``max_drop``, a share of 1.
        """
        yield from ()

    def costs(self, state: State, artifact: Artifact) -> tuple[Cost, ...]:
        """Return what each part of the student loses alone in the form of an artifact that this stage made.

        The costliest comes first. There is nothing where the parts of that form cannot be told apart, and where
        the first of its `gentler` forms measures it anyway.
        """
        return ()

    def made_with(self) -> Any:
        """Return the settings as they enter the fingerprint of what this stage makes."""
        return plain(self)


def gathered(known: Known) -> dict[str, Stage]:
    """Return the exports and quantizations whose artifacts are there for a stage that gathers them, by name."""
    made = known.group("export") | known.group("quantize")
    return {name: stage for name, stage in made.items() if not stage.gathers}
