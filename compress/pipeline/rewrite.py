"""Change a saved model without training it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from compress.models.loading import load_model, load_tokenizer, save_model
from compress.pipeline.model import Model
from compress.pipeline.workshop import Kind, Product, Workshop

PROJECTIONS = "projections.tensors"
"""What a stage of training hands to the next beside its model: its projections, as safetensors. The suffix is not the
model's, for they do not count as part of its size."""


@dataclass(frozen=True)
class Rewritten:
    """A model and its tokenizer after a change, and what was done, JSON-ready."""

    model: PreTrainedModel
    tokenizer: Any
    record: Mapping[str, Any] = field(default_factory=dict)


Change = Callable[[PreTrainedModel, Any], Rewritten]
"""Takes a model and its tokenizer; may change them in place."""


def rewrite(
    workshop: Workshop,
    kind: Kind,
    source: Model,
    made_with: Sequence[Any],
    change: Change,
    *,
    on: torch.device | None = None,
) -> Product:
    """Return the product with a changed copy of a saved model, its tokenizer and the projections beside it.

    ``made_with`` is everything that the change depends on beside the model, JSON-ready. The model is on the CPU, or
    ``on`` a device.
    """

    def work(folder: Path) -> Mapping[str, Any]:
        rewritten = change(load_model(source.folder, on=on), load_tokenizer(source.folder))
        save_model(rewritten.model.cpu(), rewritten.tokenizer, folder)
        if (source.folder / PROJECTIONS).exists():
            shutil.copyfile(source.folder / PROJECTIONS, folder / PROJECTIONS)
        return rewritten.record

    return workshop.make(kind, [source.key, *made_with], work)
