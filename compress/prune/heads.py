"""Attention heads: find those that the loss misses least and remove them physically."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from compress.families.forms.uneven import shrink
from compress.pipeline.workshop import Kind
from compress.prune.parts import HEADS, Parts
from compress.prune.rounds import InRounds


@dataclass(kw_only=True)
class PruneHeads(InRounds):
    """Remove the attention heads that the loss misses least (Michel et al., arXiv:1905.10650)."""

    importance: str = "gradient"  # gradient (Michel et al.), fisher, molchanov (mini-batches) or magnitude

    kind: ClassVar[Kind] = Kind("heads", revision=2)
    parts: ClassVar[Parts] = HEADS

    def without(self, model: PreTrainedModel, keep: list[list[int]]) -> PreTrainedModel:
        """Return the model with these heads."""
        return shrink(model, heads=keep)
