"""Encoders whose layers keep different attention heads, as transformers models that save and reload.

transformers 5 removed head pruning (`prune_heads`, `config.pruned_heads`). Here the kept heads are part
of the configuration, so `save_pretrained` and the `Auto*` classes work: a model type ``compress_bert``
is registered for each family when `compress` is imported.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from compress.models.families import FAMILIES, UNEVEN, encoder_layers, family_of, linear, replace_linear

STOCK: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "bert": (BertConfig, BertForSequenceClassification),
    "roberta": (RobertaConfig, RobertaForSequenceClassification),
    "distilbert": (DistilBertConfig, DistilBertForSequenceClassification),
    "electra": (ElectraConfig, ElectraForSequenceClassification),
}


def _uneven(
    name: str, config_class: type[PreTrainedConfig], model_class: type[PreTrainedModel]
) -> tuple[type[PreTrainedConfig], type[PreTrainedModel]]:
    """Return the configuration and model classes of one family's uneven form."""

    class Config(config_class):  # type: ignore[misc,valid-type]
        """The family's configuration, with the kept heads of each layer (numbers in the unpruned model)."""

        model_type = UNEVEN + name
        kept_heads: list[list[int]] | None = None

    class Model(model_class):  # type: ignore[misc,valid-type]
        """The family's classifier, with as many heads in each layer as its configuration keeps."""

        config_class: ClassVar[type] = Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for layer, kept in zip(encoder_layers(self, FAMILIES[name]), config.kept_heads or [], strict=False):
                _resize(layer, config, len(kept))

    Config.__name__ = Config.__qualname__ = f"Uneven{config_class.__name__}"
    Model.__name__ = Model.__qualname__ = f"Uneven{model_class.__name__}"
    return Config, Model


def _resize(layer: nn.Module, config: Any, heads: int) -> None:
    """Give a layer fresh attention projections for ``heads`` heads; checkpoint values are loaded later."""
    family = family_of(config)
    width = heads * head_size(config)
    for path in (family.query, family.key, family.value):
        old = linear(layer, path)
        replace_linear(layer, path, nn.Linear(old.in_features, width, dtype=old.weight.dtype))
    old = linear(layer, family.attention_output)
    replace_linear(layer, family.attention_output, nn.Linear(width, old.out_features, dtype=old.weight.dtype))


UNEVEN_CLASSES = {name: _uneven(name, *classes) for name, classes in STOCK.items()}


def head_size(config: Any) -> int:
    """Return the width of one attention head."""
    return int(config.hidden_size) // int(config.num_attention_heads)


def kept_heads(config: Any) -> list[list[int]]:
    """Return each layer's heads by their numbers in the unpruned model."""
    kept = getattr(config, "kept_heads", None)
    return kept or [list(range(config.num_attention_heads)) for _ in range(config.num_hidden_layers)]


def keep_heads(model: PreTrainedModel, keep: list[list[int]]) -> PreTrainedModel:
    """Return a model with only these heads, physically smaller; ``model`` is left as it was.

    ``keep`` lists, a layer, positions among the heads that ``model`` has now. A kept head computes exactly
    what it did. Raises ValueError where a layer would be left without heads.
    """
    config = model.config
    family = family_of(config)
    if any(not heads for heads in keep):
        raise ValueError("every layer must keep at least one head")
    before = kept_heads(config)
    config_class, model_class = UNEVEN_CLASSES[family.model_type]
    settings = config.to_dict() | {
        "kept_heads": [[names[i] for i in heads] for names, heads in zip(before, keep, strict=True)]
    }
    settings.pop("model_type")
    smaller = model_class(config_class(**settings))
    smaller.set_attn_implementation(config._attn_implementation)
    weights = model.state_dict()
    size = head_size(config)
    for index, heads in enumerate(keep):
        rows = torch.cat([torch.arange(head * size, (head + 1) * size) for head in heads])
        prefix = f"{family.base}.{family.layers}.{index}."
        for path in (family.query, family.key, family.value):
            for part in ("weight", "bias"):
                name = f"{prefix}{path}.{part}"
                weights[name] = weights[name][rows.to(weights[name].device)]
        name = f"{prefix}{family.attention_output}.weight"
        weights[name] = weights[name][:, rows.to(weights[name].device)]
    smaller.load_state_dict(weights)
    nn.Module.to(smaller, model.device)
    smaller.train(model.training)
    return smaller
