"""Load any encoder as a model of sentence vectors, with what its folder has behind the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from compress.models.loading import load_model
from compress.models.sentence_transformers import dense_weights
from compress.tasks.vectors import MODULES


def load_encoder(
    model: str | Path, config: Any, head: Mapping[str, Any], *, trained: bool, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Return a model of sentence vectors with the head's settings.

    ``config`` is one that `compress.models.sentence_transformers.note_modules` was given. ``trained``: it was saved as
    such a model. Otherwise its linear layer is that of its folder, or the identity.
    """
    loaded = load_model(model, trust_remote_code=trust_remote_code, head=head, trained=trained)
    dense = (getattr(config, MODULES, None) or {}).get("dense")
    if not trained and dense is not None:
        weights, linear = dense_weights(model, dense), loaded.get_submodule("classifier")
        bias = weights.get("linear.bias", torch.zeros(len(weights["linear.weight"])))
        linear.load_state_dict({"weight": weights["linear.weight"], "bias": bias})
    return loaded
