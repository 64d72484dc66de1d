"""Zeros that come while the student is distilled again: the schedule that methods share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compress.distill.sparsify import Sparsify, WeightScores
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.prune.gradual import Curve
from compress.prune.methods.base import Sparsity
from compress.prune.rounds import Scope
from compress.settings import at_least, between


@dataclass(kw_only=True)
class Scheduled(Sparsity):
    """When weights leave in a training."""

    begin: float = 0.0  # share of that training before the first zeros
    end: float = 0.7  # share of that training after which all zeros are set
    schedule: Curve = Curve.cubic  # cubic: most of them early; linear: equally many each time
    every: int = 10  # steps between choices of what to remove

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges, too."""
        yield from super().faults(known)
        yield from between(self, "begin", 0, 1)
        yield from between(self, "end", 0, 1)
        yield from at_least(self, "every", 1)
        if self.begin > self.end:
            yield Fault("begin", self.begin, f"must be at most end = {self.end:g}")


def trained(stage: Scheduled, state: State, scores: WeightScores) -> Product:
    """Return the student, distilled again while the weights with the lowest scores leave."""
    sparsify = Sparsify(
        sparsity=stage.sparsity,
        pattern=stage.pattern,
        together=stage.scope is Scope.all,
        embeddings=stage.embeddings,
        scores=scores,
        cubic=stage.schedule is Curve.cubic,
        begin=stage.begin,
        end=stage.end,
        every=stage.every,
    )
    return state.given_recovery.train(
        state, state.given_student, stage.recovery_epochs, name=f"weights_{stage.method}", sparsify=sparsify
    )
