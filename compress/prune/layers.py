"""Whole layers: find those that the loss misses least, or every other one, and leave them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from transformers import PreTrainedModel

from compress.errors import Fault
from compress.families.forms.uneven import shrink
from compress.families.registry import layer_count
from compress.known import NOTHING, Known
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.prune.parts import LAYERS, Parts
from compress.prune.rounds import InRounds


class Selection(Enum):
    """importance: the least important first; every_other: evenly spread over the depth."""

    importance = "importance"
    every_other = "every_other"


@dataclass(kw_only=True)
class PruneLayers(InRounds):
    """Leave out the layers that the loss misses least (Sajjad et al., arXiv:2004.03844, drop them the same way).

    With ``order=every_other`` and ``recovery_epochs=0`` it is the cut of a student trained with LayerDrop.
    """

    importance: str = "loss"  # loss, gradient, fisher, molchanov (mini-batches), or activation (block influence)
    order: Selection = Selection.importance  # importance; or every_other: evenly spread, as after LayerDrop

    kind: ClassVar[Kind] = Kind("layers", revision=1)
    parts: ClassVar[Parts] = LAYERS
    cuts_matrices: ClassVar[bool] = False

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Every other layer is one cut, whatever the loss says."""
        yield from super().faults(known)
        if self.order is Selection.every_other:
            if self.rounds > 1:
                yield Fault("rounds", self.rounds, "must be 1 with order = every_other, which is one cut")
            if self.importance != "loss":
                yield Fault("importance", self.importance, "has no effect with order = every_other")

    def without(self, model: PreTrainedModel, keep: list[list[int]]) -> PreTrainedModel:
        """Return the model with these layers."""
        return shrink(model, layers=keep[0])

    def chosen_by(self, state: State) -> Any:
        """Every other layer depends on nothing but the model."""
        return self.order.value if self.order is Selection.every_other else super().chosen_by(state)

    def kept(
        self, state: State, model: PreTrainedModel, tokenizer: Any, remaining: int
    ) -> tuple[list[list[int]], dict[str, Any]]:
        """Return the layers to keep, by importance or spread evenly."""
        if self.order is Selection.importance:
            return super().kept(state, model, tokenizer, remaining)
        return [every_other(layer_count(model.config), remaining)], {}


def every_other(layers: int, remaining: int) -> list[int]:
    """Return the positions of the layers to keep, evenly spread: ``remaining`` of them, at least one.

    LayerDrop's paper (arXiv:1909.11556) removes a share p by dropping the layers at depths d ≡ 0 (mod ⌊1/p⌋),
    counted from 1, which removes that share only where 1/p is a whole number that divides the depth. Here ⌊i · layers
    / removed⌋, i = 1 … removed, are dropped: the same layers in that case, and the wanted number in every other.
    """
    removed = layers - max(1, remaining)
    dropped = {turn * layers // removed for turn in range(1, removed + 1)}
    return [depth - 1 for depth in range(1, layers + 1) if depth not in dropped]
