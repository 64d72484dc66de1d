"""Feed-forward units, by layer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.base import encoder_layers, family_of, linear
from compress.families.forms.uneven import neurons
from compress.models.outputs import observe
from compress.prune.parts.base import Active, Batch, Parts, Weighed, inputs_changed


class Units(Parts, Weighed, Active):
    """A gate multiplies a unit's output."""

    name: ClassVar[str] = "neurons"

    def sizes(self, config: Any) -> list[int]:
        """Return the feed-forward units of each layer."""
        return neurons(config)

    def gated(self, model: PreTrainedModel, gates: list[Tensor]) -> AbstractContextManager[None]:
        """Gate every unit."""
        return inputs_changed(_readers(model), [partial(_gated, gate) for gate in gates])

    def norms(self, model: PreTrainedModel) -> list[Tensor]:
        """Return the l2 norm of each unit's incoming and outgoing weights."""
        family = family_of(model.config)
        return [
            torch.cat([linear(layer, family.up).weight.detach(), linear(layer, family.down).weight.detach().T], 1)
            .norm(dim=1)
            .cpu()
            for layer in encoder_layers(model, family)
        ]

    def activity(self, model: PreTrainedModel, batch: Batch) -> tuple[list[Tensor], int]:
        """Return the absolute outputs."""
        real, outputs = batch["attention_mask"].bool(), list[Tensor]()

        def note(output: Tensor) -> Tensor:
            outputs.append(output)
            return output

        readers = _readers(model)
        with inputs_changed(readers, [note] * len(readers)):
            observe(model, batch)
        return [output[real].abs().sum(0).cpu() for output in outputs], int(real.sum())


def _readers(model: PreTrainedModel) -> list[nn.Linear]:
    """Return, by layer, the linear layer that reads the units."""
    family = family_of(model.config)
    return [linear(layer, family.down) for layer in encoder_layers(model, family)]


def _gated(gate: Tensor, output: Tensor) -> Tensor:
    """Multiply (batch, tokens, units) by (batch, units)."""
    return output * gate[:, None, :]


UNITS = Units()
