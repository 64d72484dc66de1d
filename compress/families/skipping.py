"""A model run without some of its layers, which stay where they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from compress.families.base import encoder_layers, family_of, layer_count
from compress.models.outputs import Outputs, observe


def observe_without(
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    skipped: Collection[int],
    *,
    hidden: bool = False,
    scores: bool = False,
    relations: bool = False,
) -> Outputs:
    """Run ``model`` on a batch without the layers ``skipped``, counted from 1, and return what is asked for.

    Layers keep their numbers. What a skipped layer gives is what it is given, so its hidden state is that of the
    layer before; it has no attention, so it has no scores, queries, keys or values. Nothing of it is computed.
    The logits are those of the model from which these layers were removed. Otherwise as `observe`.
    """
    if not skipped:
        return observe(model, batch, hidden=hidden, scores=scores, relations=relations)
    with _skipping(model, skipped):
        said = observe(model, batch, hidden=hidden, scores=scores, relations=relations)
    ran = [layer for layer in range(1, layer_count(model.config) + 1) if layer not in skipped]

    def in_place(by_turn: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {ran[turn - 1]: value for turn, value in by_turn.items()}

    return replace(
        said,
        scores=in_place(said.scores),
        queries=in_place(said.queries),
        keys=in_place(said.keys),
        values=in_place(said.values),
    )


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
