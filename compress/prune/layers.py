"""Whole layers: find those that the loss misses least and leave them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from compress.models.families import layer_count
from compress.models.uneven import shrink
from compress.prune.importance import Batches, Importance, layer_importance
from compress.prune.rounds import InRounds


@dataclass(kw_only=True)
class PruneLayers(InRounds):
    """Leave out the layers that the loss misses least (Sajjad et al., arXiv:2004.03844, drop them the same way)."""

    importance: Importance = Importance.loss  # loss, gradient, taylor, or activation (block influence)

    what: ClassVar[str] = "layers"
    measures: ClassVar[tuple[Importance, ...]] = (
        Importance.loss,
        Importance.gradient,
        Importance.taylor,
        Importance.activation,
    )

    def sizes(self, config: Any) -> list[int]:
        """Return the number of layers, as one group."""
        return [layer_count(config)]

    def measure(self, model: PreTrainedModel, batches: Batches) -> list[Tensor]:
        """Return `layer_importance`, as one group."""
        return [layer_importance(model, batches, self.importance)]

    def without(self, model: PreTrainedModel, keep: list[list[int]]) -> PreTrainedModel:
        """Return the model with these layers."""
        return shrink(model, layers=keep[0])
