"""A model run without some of its layers, which stay where they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from compress.families.base import forward_replaced
from compress.families.registry import family_of, layer_count
from compress.models.outputs import Outputs, observe
from compress.models.quantities import Quantity


def observe_without(
    model: PreTrainedModel, batch: Mapping[str, Tensor], skipped: Collection[int], *quantities: Quantity
) -> Outputs:
    """Run ``model`` on a batch without the layers ``skipped``, counted from 1; return logits and these quantities.

    Layers keep their numbers. A skipped layer hands on what it is given, so its hidden state is that of the layer
    before; it has no attention, so it has no scores, queries, keys or values. Nothing of it is computed. The logits
    are those of the model from which these layers were removed. Otherwise as `observe`.
    """
    if not skipped:
        return observe(model, batch, *quantities)
    ran = [layer for layer in range(1, layer_count(model.config) + 1) if layer not in skipped]
    with _skipping(model, skipped):
        return observe(model, batch, *quantities, layers=ran)


@contextmanager
def _skipping(model: PreTrainedModel, skipped: Collection[int]) -> Iterator[None]:
    """Let layers, counted from 1, hand on what they are given, for a time."""
    family = family_of(model.config)
    layers = family.layers(model)
    chosen = [layers[number - 1] for number in sorted(skipped)]  # transformers notes hidden states by their hooks
    with forward_replaced(chosen, _handed_on_first if family.layers_return_tuples else _handed_on):
        yield


def _handed_on(_: Any, hidden_states: Tensor, *__: Any, **___: Any) -> Tensor:
    return hidden_states


def _handed_on_first(_: Any, hidden_states: Tensor, *__: Any, **___: Any) -> tuple[Tensor, None]:
    return hidden_states, None
