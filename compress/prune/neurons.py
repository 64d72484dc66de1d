"""Feed-forward units: find those that the loss misses least and remove them physically."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from compress.families.forms.uneven import shrink
from compress.pipeline.workshop import Kind
from compress.prune.parts import UNITS, Parts
from compress.prune.rounds import InRounds


@dataclass(kw_only=True)
class PruneNeurons(InRounds):
    """Remove the feed-forward units that the loss misses least (Theis et al., arXiv:1801.05787)."""

    importance: str = "fisher"  # fisher, molchanov (mini-batches), gradient, magnitude, activation

    kind: ClassVar[Kind] = Kind("neurons", revision=2)
    parts: ClassVar[Parts] = UNITS

    def without(self, model: PreTrainedModel, keep: list[list[int]]) -> PreTrainedModel:
        """Return the model with these units."""
        return shrink(model, units=keep)
