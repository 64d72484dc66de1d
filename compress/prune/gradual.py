"""Pruning in rounds: how many there are, on which rows parts are compared, and recovery after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import numpy as np

from compress.distill.stage import planned_recovery
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.record import Role
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.settings import at_least


class Curve(Enum):
    """linear: as many each round; cubic: most of them early (Zhu & Gupta, arXiv:1710.01878)."""

    linear = "linear"
    cubic = "cubic"


@dataclass(kw_only=True)
class Gradual(Stage):
    """Measure, remove and recover, once or several times."""

    role: ClassVar[Role] = Role.pruning
    recovers: ClassVar[bool] = True

    rounds: int = 1  # of measuring, removing and recovering; 1: one-shot, more is gentler
    schedule: Curve = Curve.linear  # linear: as many each round; cubic: most of them early
    rows: int = 512  # labelled training rows on which importance is measured
    recovery_epochs: float = 1.0  # distillation after pruning, all rounds together; 0: none

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges, that a schedule has rounds, and that nothing recovers before it was distilled."""
        yield from at_least(self, "rounds", 1)
        yield from at_least(self, "rows", 1)
        yield from at_least(self, "recovery_epochs", 0)
        if self.schedule is not Curve.linear and self.rounds == 1:
            yield Fault("schedule", self.schedule.value, "has no effect on one round", "Set rounds above 1.")
        if self.recovery_epochs and any(stage is self for stage in known.group("prepare").values()):
            yield Fault("recovery_epochs", self.recovery_epochs, "comes before the distillation", "Set it to 0.")

    def done(self, turn: int) -> float:
        """Return the share of the removal that is done after a round, counted from 1."""
        share = turn / self.rounds
        return share if self.schedule is Curve.linear else 1 - (1 - share) ** 3

    def sample(self, state: State, tokenizer: Any) -> Tokens:
        """Return the rows on which parts are compared."""
        rows = np.random.default_rng(state.seed).permutation(len(state.data.train))[: self.rows]
        return tokenize(state.data.train.take(rows), tokenizer, tokenizer.model_max_length)

    def plan(self, plan: Plan) -> Plan:
        """A recovery after each round."""
        for _ in range(self.rounds):
            plan = planned_recovery(plan, self.recovery_epochs / self.rounds)
        return plan

    def recovered(self, state: State, student: Model) -> Product | None:
        """Return the student after a round's share of the recovery; None where there is none."""
        if state.recovery is None or self.recovery_epochs <= 0:
            return None
        return state.recovery.train(state, student, self.recovery_epochs / self.rounds)
