"""Attention heads, by layer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.families.base import encoder_layers, family_of, linear
from compress.families.forms.uneven import head_size, kept_heads
from compress.models.attention import gated
from compress.models.ensemble import principal
from compress.prune.parts.base import Parts, Weighed


class Heads(Parts, Weighed):
    """A gate multiplies what a head hands on."""

    name: ClassVar[str] = "heads"

    def sizes(self, config: Any) -> list[int]:
        """Return the heads of each layer."""
        return [len(heads) for heads in kept_heads(config)]

    def gated(self, model: PreTrainedModel, gates: list[Tensor]) -> AbstractContextManager[None]:
        """Gate every head."""
        return gated(principal(model), gates)

    def norms(self, model: PreTrainedModel) -> list[Tensor]:
        """Return the l2 norm of each head's query, key, value and output weights."""
        return [_norms(model, index) for index in range(len(kept_heads(model.config)))]


def _norms(model: PreTrainedModel, index: int) -> Tensor:
    family, size = family_of(model.config), head_size(model.config)
    layer = encoder_layers(model, family)[index]
    weights = [linear(layer, path).weight.detach() for path in (family.query, family.key, family.value)]
    weights.append(linear(layer, family.attention_output).weight.detach().T)
    squares = [weight.reshape(-1, size, weight.shape[1]).pow(2).sum((1, 2)) for weight in weights]
    return torch.stack(squares).sum(0).sqrt().cpu()


HEADS = Heads()
