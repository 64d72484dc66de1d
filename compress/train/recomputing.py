"""Gradient checkpointing: a layer's activations are computed again for the backward pass, in place of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from compress.families.forms.fake_quantization import ranges
from compress.models.attention import is_watched, listening

FLAG, FUNCTION = "gradient_checkpointing", "_gradient_checkpointing_func"  # what transformers asks its layers for


def kept_because(model: nn.Module) -> str:
    """Return why the activations of a model must be kept, as a clause; empty where they can be computed again."""
    if not any(hasattr(module, FLAG) for module in model.modules()):
        return "transformers has no gradient checkpointing for models of this type"
    if any(True for _ in ranges(model)):
        return "the ranges of fake quantization would move twice"
    return ""


@contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Keep only the input of each layer for the backward pass, within the block (Chen et al., arXiv:1604.06174).

    Gradients stay the same, dropout included, and so does what losses see of the attention. A step takes about a
    third longer.
    """
    layers = [module for module in model.modules() if hasattr(module, FLAG)]
    for layer in layers:
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, context_fn=_Again(model))  # type: ignore[assignment]
        layer.gradient_checkpointing = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = False  # type: ignore[assignment]
            delattr(layer, FUNCTION)


class _Again:
    """What a layer runs in, first and again; a class of its own so that a model in training can be pickled."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __call__(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return both: where attention is watched, it is computed as then, and nobody listens."""
        return nullcontext(), listening(self.model, _nobody) if is_watched() else nullcontext()


def _nobody(_: Any) -> None:
    """Listen to nothing."""
