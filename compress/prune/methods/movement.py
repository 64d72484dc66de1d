"""Weights leave that training moves towards zero (Sanh et al., arXiv:2005.07683)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compress.distill.sparsify import WeightScores
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.masking import Masked
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.prune.methods.base import Method, register
from compress.prune.methods.while_training import Scheduled, trained
from compress.settings import positive


@dataclass(frozen=True)
class Movements(WeightScores):
    """Scores that are learned with the weights: -rate · Σ ∂L/∂W′ · W over the steps (arXiv:2005.07683, eq. 3).

    With blocks, summed over a block (Lagunas et al., arXiv:2109.04838).
    """

    learning_rate: float

    def of(self, module: nn.Module, masked: Masked) -> Tensor:
        """Return what was learned."""
        assert masked.scores is not None
        return masked.scores

    def made_with(self) -> Mapping[str, Any]:
        """Return what caches have had since the first version."""
        return {"movement": True, "score_learning_rate": self.learning_rate}


@dataclass(kw_only=True)
class MovementSettings(Scheduled):
    """How scores are learned, too."""

    score_learning_rate: float = 0.01  # of movement's scores, at its highest

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges, too; movement needs a part of the training to learn in."""
        yield from super().faults(known)
        yield from positive(self, "score_learning_rate")
        if self.method == "movement" and self.begin == self.end:
            yield Fault("end", self.end, "must be above begin: meanwhile movement learns which weights to remove")


@register("movement")
class MovementPruning(Method[MovementSettings]):
    """By what training does to a weight, not by how large it is."""

    settings = MovementSettings

    def __call__(self, stage: MovementSettings, state: State) -> list[Product]:
        """Return the student."""
        return [trained(stage, state, Movements(stage.score_learning_rate))]
