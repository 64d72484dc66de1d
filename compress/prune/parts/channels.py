"""Hidden channels, the one thing that all layers share, as one group."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.families.registry import family_of
from compress.models.outputs import observe
from compress.prune.parts.base import Active, Batch, Parts, outputs_changed


class Channels(Parts, Active):
    """A gate multiplies a channel of the states wherever the family says that they are.

    A gate at 0 takes the channel out everywhere, except that layer normalisations still count it.
    """

    name: ClassVar[str] = "channels"

    def sizes(self, config: Any) -> list[int]:
        """Return the number of hidden channels."""
        return [int(config.hidden_size)]

    def gated(self, model: PreTrainedModel, gates: list[Tensor]) -> AbstractContextManager[None]:
        """Gate every channel."""
        return outputs_changed(family_of(model.config).stream(model), lambda states: states * gates[0][:, None, :])

    def activity(self, model: PreTrainedModel, batch: Batch) -> tuple[list[Tensor], int]:
        """Return the absolute states, summed over the same places."""
        places, real, sums = family_of(model.config).stream(model), batch["attention_mask"].bool(), list[Tensor]()

        def note(states: Tensor) -> Tensor:
            sums.append(states[real].abs().sum(0))
            return states

        with outputs_changed(places, note):
            observe(model, batch)
        return [torch.stack(sums).sum(0).cpu()], int(real.sum()) * len(places)


CHANNELS = Channels()
