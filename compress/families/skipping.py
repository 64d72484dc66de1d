"""A model run without some of its layers, which stay where they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from compress.families.base import encoder_layers, family_of, layer_count
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
    layers = encoder_layers(model, family_of(model.config))
    chosen = [layers[number - 1] for number in sorted(skipped)]
    before = [vars(layer).get("forward") for layer in chosen]  # an instance's own, which is rare
    try:
        for layer in chosen:
            layer.forward = _handed_on  # its hooks still run: transformers notes hidden states by them
        yield
    finally:
        for layer, own in zip(chosen, before, strict=True):
            vars(layer).pop("forward", None)
            if own is not None:
                layer.forward = own


def _handed_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states
