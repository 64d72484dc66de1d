"""Heads that transformers 4 pruned: transformers 5 has no place for them, and the uneven form has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.families.forms.uneven import UnevenForm
from compress.families.registry import FAMILIES, family_behind


def with_pruned_heads(model: str | Path, config: Any) -> Any:
    """Return the uneven form of a configuration whose ``pruned_heads`` transformers 4 wrote; others as they are.

    They are {layer: numbers of the heads that it lost}. Raises ModelError for a family that is not in the table,
    and for layers and heads that are not there.
    """
    pruned = getattr(config, "pruned_heads", None)
    if not pruned:
        return config
    if not isinstance(pruned, dict):
        raise ModelError(f"{model}: pruned_heads in config.json must say heads by layer. Correct config.json.")
    family = family_behind(config.model_type)
    if family is None or family.shares_weights(config):
        where = ", ".join(f"layer {layer}: heads {_listed(heads)}" for layer, heads in pruned.items())
        raise ModelError(
            f"{model}: pruned_heads in config.json ({where}): transformers 5 cannot build a model of type "
            f"{config.model_type} without them, and here only {', '.join(FAMILIES)} can, where layers share no "
            "weights. "
            "Name the model before pruning."
        )
    kept = [list(range(config.num_attention_heads)) for _ in range(config.num_hidden_layers)]
    for layer, heads in pruned.items():
        place = int(layer) if str(layer).isdigit() else -1
        known = isinstance(heads, list) and all(type(head) is int for head in heads)
        if not known or not 0 <= place < len(kept) or not set(heads) < set(range(config.num_attention_heads)):
            raise ModelError(
                f"{model}: pruned_heads in config.json: layer {layer} cannot have lost heads {_listed(heads)} of "
                f"{len(kept)} layers with {config.num_attention_heads} heads each. Correct config.json."
            )
        kept[place] = [head for head in kept[place] if head not in heads]
    settings = config.to_dict() | {"kept_heads": kept}
    del settings["pruned_heads"], settings["model_type"]
    uneven = UnevenForm.config_of(family)(**settings)
    uneven.name_or_path, uneven._commit_hash = config.name_or_path, getattr(config, "_commit_hash", None)
    return uneven


def _listed(heads: object) -> str:
    return ", ".join(map(str, heads)) if isinstance(heads, list) else repr(heads)
