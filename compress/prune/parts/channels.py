"""Hidden channels, the one thing that all layers share, as one group."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.registry import family_of
from compress.models.outputs import observe
from compress.prune.parts.base import Active, Batch, Parts, outputs_changed


class Channels(Parts, Active):
    """A gate multiplies a channel of the states wherever `stream` finds them.

    A gate at 0 takes the channel out everywhere, except that layer normalisations still count it.
    """

    name: ClassVar[str] = "channels"

    def sizes(self, config: Any) -> list[int]:
        """Return the number of hidden channels."""
        return [int(config.hidden_size)]

    def gated(self, model: PreTrainedModel, gates: list[Tensor]) -> AbstractContextManager[None]:
        """Gate every channel."""
        return outputs_changed(stream(model), lambda states: states * gates[0][:, None, :])

    def activity(self, model: PreTrainedModel, batch: Batch) -> tuple[list[Tensor], int]:
        """Return the absolute states, summed over the places that `stream` finds too."""
        places, real, sums = stream(model), batch["attention_mask"].bool(), list[Tensor]()

        def note(states: Tensor) -> Tensor:
            sums.append(states[real].abs().sum(0))
            return states

        with outputs_changed(places, note):
            observe(model, batch)
        return [torch.stack(sums).sum(0).cpu()], int(real.sum()) * len(places)


def stream(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules that give states: what is embedded, and each layer's normalised sums, first to last."""
    family = family_of(model.config)
    norms = (part for layer in family.layers(model) for part in layer.modules() if isinstance(part, nn.LayerNorm))
    return [family.embedders(model)[-1], *norms]


CHANNELS = Channels()
