"""Feed-forward units: find those that the loss misses least and remove them physically."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from compress.families.forms.uneven import neurons, shrink
from compress.pipeline.workshop import Kind
from compress.prune.importance import Batches, Importance, neuron_importance
from compress.prune.rounds import InRounds


@dataclass(kw_only=True)
class PruneNeurons(InRounds):
    """Remove the feed-forward units that the loss misses least (Molchanov et al., arXiv:1906.10771)."""

    importance: Importance = Importance.taylor  # taylor, gradient, magnitude, activation

    kind: ClassVar[Kind] = Kind("neurons", revision=1)
    measures: ClassVar[tuple[Importance, ...]] = (
        Importance.gradient,
        Importance.taylor,
        Importance.magnitude,
        Importance.activation,
    )

    def sizes(self, config: Any) -> list[int]:
        """Return the feed-forward units of each layer."""
        return neurons(config)

    def measure(self, model: PreTrainedModel, batches: Batches) -> list[Tensor]:
        """Return `neuron_importance`."""
        return neuron_importance(model, batches, self.importance)

    def without(self, model: PreTrainedModel, keep: list[list[int]]) -> PreTrainedModel:
        """Return the model with these units."""
        return shrink(model, units=keep)
