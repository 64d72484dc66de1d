"""What a model answers to a batch, the same for every family: its logits, and whatever else is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.models.ensemble import principal
from compress.models.quantities import LOGITS, Quantity
from compress.models.shared_words import pooled

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Outputs:
    """What a model computed for one batch: ``outputs[quantity][layer]`` is (batch, …)."""

    mask: Tensor  # (batch, tokens), 1 on real tokens
    values: Mapping[Quantity, Mapping[int, Tensor]]
    answering: Tensor | None = None  # (batch, tokens), 1 on tokens whose answers are read; None: rows answer
    weights: Tensor | None = None  # (batch,), how much each row's logits count, 0: not at all; None: all the same

    def __getitem__(self, quantity: Quantity) -> Mapping[int, Tensor]:
        return self.values[quantity]

    def by_words(self, numbers: Tensor) -> Outputs:
        """Return the mean over the tokens of each word of all that is by token (`Quantity.pools`).

        ``numbers`` (batch, tokens) are the tokens' words, see `compress.models.shared_words`; the mask is of words.
        """
        words = int(numbers.max()) + 1
        values = {
            quantity: {layer: pooled(own, numbers, words) if quantity.pools else own for layer, own in layers.items()}
            for quantity, layers in self.values.items()
        }
        return replace(self, mask=words_in(numbers), values=values)

    @property
    def logits(self) -> Tensor:
        """The answers, (batch, outputs)."""
        return self.values[LOGITS][0]


def words_in(numbers: Tensor) -> Tensor:
    """Return (batch, words), 1 where a row has a word, of the words (batch, tokens) of its tokens."""
    ones = torch.ones_like(numbers, dtype=torch.float32)[..., None]
    return pooled(ones, numbers, int(numbers.max()) + 1)[..., 0].long()


def observe(
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    *quantities: Quantity,
    layers: Sequence[int] | None = None,
) -> Outputs:
    """Run ``model`` on a batch and return its logits and these quantities.

    ``layers`` are the numbers of the layers that run, where others are skipped. Of an ensemble all but the logits are
    its chosen member's.
    """
    inputs: dict[str, Any] = {name: batch[name] for name in INPUTS if name in batch}
    chosen = principal(model)
    with ExitStack() as watching:
        captured = {}
        for quantity in dict.fromkeys((LOGITS, *quantities)):
            numbers = count(1) if layers is None else iter(layers)
            captured[quantity] = watching.enter_context(quantity.capture(chosen, numbers))
            inputs |= quantity.asks
        returned = model(**inputs)
        values = {quantity: taken(returned) for quantity, taken in captured.items()}
    return Outputs(batch["attention_mask"], values, batch.get("answering"))


@torch.no_grad()
def parameters(model: nn.Module) -> int:
    """Return the number of parameters, shared ones counted once."""
    return sum(p.numel() for p in model.parameters())
