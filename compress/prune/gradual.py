"""Pruning in rounds: how many there are, on which rows parts are compared, and recovery after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import numpy as np

from compress.errors import Fault
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.model import Model
from compress.pipeline.record import Role
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.settings import at_least


class Rounds(Enum):
    """linear: as many each round; cubic: most of them early (Zhu & Gupta, arXiv:1710.01878)."""

    linear = "linear"
    cubic = "cubic"


@dataclass(kw_only=True)
class Gradual(Stage):
    """Measure, remove and recover, once or several times."""

    role: ClassVar[Role] = Role.pruning

    steps: int = 1  # rounds of measuring, removing and recovering; 1: one-shot, more is gentler
    rounds: Rounds = Rounds.linear  # linear: as many each round; cubic: most of them early
    rows: int = 512  # labelled training rows on which importance is measured
    recovery_epochs: float = 1.0  # distillation after pruning, all rounds together; 0: none

    def faults(self) -> Iterator[Fault]:
        """Counts are counts."""
        yield from at_least(self, "steps", 1)
        yield from at_least(self, "rows", 1)
        yield from at_least(self, "recovery_epochs", 0)
        if self.rounds is not Rounds.linear and self.steps == 1:
            yield Fault("rounds", self.rounds.value, "has no effect on one round", "Set steps above 1.")

    def done(self, step: int) -> float:
        """Return the share of the way that is gone after a round, counted from 1."""
        share = step / self.steps
        return share if self.rounds is Rounds.linear else 1 - (1 - share) ** 3

    def sample(self, state: State, tokenizer: Any) -> Tokens:
        """Return the rows on which parts are compared."""
        rows = np.random.default_rng(state.seed).permutation(len(state.data.train))[: self.rows]
        return tokenize(state.data.train.take(rows), tokenizer, tokenizer.model_max_length)

    def recovered(self, state: State, student: Model) -> Product | None:
        """Return the student after a round's share of the recovery; None where there is none."""
        if state.recovery is None or self.recovery_epochs <= 0:
            return None
        return state.recovery.train(state, student, self.recovery_epochs / self.steps)
