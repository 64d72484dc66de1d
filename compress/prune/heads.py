"""Attention heads: find those that the loss misses least and remove them physically."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from compress.families.forms.uneven import kept_heads, shrink
from compress.pipeline.workshop import Kind
from compress.prune.importance import Batches, Importance, head_importance
from compress.prune.rounds import InRounds


@dataclass(kw_only=True)
class PruneHeads(InRounds):
    """Remove the attention heads that the loss misses least (Michel et al., arXiv:1905.10650)."""

    importance: Importance = Importance.gradient  # gradient (Michel et al.), taylor or magnitude

    kind: ClassVar[Kind] = Kind("heads", revision=1)
    measures: ClassVar[tuple[Importance, ...]] = (Importance.gradient, Importance.taylor, Importance.magnitude)

    def sizes(self, config: Any) -> list[int]:
        """Return the heads of each layer."""
        return [len(heads) for heads in kept_heads(config)]

    def measure(self, model: PreTrainedModel, batches: Batches) -> list[Tensor]:
        """Return `head_importance`."""
        return head_importance(model, batches, self.importance)

    def without(self, model: PreTrainedModel, keep: list[list[int]]) -> PreTrainedModel:
        """Return the model with these heads."""
        return shrink(model, heads=keep)
