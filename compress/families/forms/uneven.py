"""Encoders whose layers differ in heads and feed-forward width, or whose states are narrower than their heads together.

transformers 5 removed head pruning (`prune_heads`, `config.pruned_heads`). Here the shape of every layer is
part of the configuration, so `save_pretrained` and the `Auto*` classes work: a model type ``compress_bert``
is registered for each family when `compress` is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
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

from compress.families.base import FAMILIES, UNEVEN, encoder_layers, family_of, linear, replace_linear
from compress.models.quiet import quiet

STOCK: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "bert": (BertConfig, BertForSequenceClassification),
    "roberta": (RobertaConfig, RobertaForSequenceClassification),
    "distilbert": (DistilBertConfig, DistilBertForSequenceClassification),
    "electra": (ElectraConfig, ElectraForSequenceClassification),
}

NARROWED = ("kept_channels", "unpruned_size", "embeddings_projected")
"""What a configuration says of states that lost channels."""


def _uneven(
    name: str, config_class: type[PreTrainedConfig], model_class: type[PreTrainedModel]
) -> tuple[type[PreTrainedConfig], type[PreTrainedModel]]:
    """Return the configuration and model classes of one family's uneven form."""

    class Config(config_class):  # type: ignore[misc,valid-type]
        """The family's configuration, with the shape of each layer.

        ``kept_heads``: numbers of the heads in the unpruned model; ``neurons``: feed-forward units; None: all.
        ``kept_channels``: numbers of the hidden channels in the unpruned model, which had ``unpruned_size`` of
        them; heads, and the hidden layer of the classifier's head, keep the width that they had there. None: all.
        ``embeddings_projected``: embeddings reach the states through a projection (ELECTRA); None: where widths differ.
        """

        model_type = UNEVEN + name
        kept_heads: list[list[int]] | None = None
        neurons: list[int] | None = None
        kept_channels: list[int] | None = None
        unpruned_size: int | None = None
        embeddings_projected: bool | None = None

    class Model(model_class):  # type: ignore[misc,valid-type]
        """The family's classifier, its layers in the shapes that its configuration says."""

        config_class: ClassVar[type] = Config

        def __init__(self, config: Any) -> None:
            with _undivided(config):
                super().__init__(config)
            if config.unpruned_size:
                _widen(self, config)
            layers = encoder_layers(self, FAMILIES[name])
            for layer, heads, width in zip(layers, kept_heads(config), neurons(config), strict=True):
                _resize(layer, config, len(heads), width)

    Config.__name__ = Config.__qualname__ = f"Uneven{config_class.__name__}"
    Model.__name__ = Model.__qualname__ = f"Uneven{model_class.__name__}"
    return Config, Model


@contextmanager
def _undivided(config: Any) -> Iterator[None]:
    """Let the family's classes build narrow states as one head; they refuse heads that do not divide the width."""
    key = family_of(config).heads_key
    heads = getattr(config, key)
    if config.unpruned_size:
        setattr(config, key, 1)
    try:
        yield
    finally:
        setattr(config, key, heads)


def _widen(model: PreTrainedModel, config: Any) -> None:
    """Give heads, the classifier's own hidden layer and projected embeddings the sizes that narrow states hide."""
    family, size = family_of(config), head_size(config)
    for layer in encoder_layers(model, family):
        attention: Any = layer.get_submodule(family.query.rpartition(".")[0])
        attention.attention_head_size, attention.scaling = size, size**-0.5
    _replace(model, family.head, outputs=config.unpruned_size)
    _replace(model, family.head_output, inputs=config.unpruned_size)
    if config.embeddings_projected:
        model.base_model.embeddings_project = nn.Linear(config.embedding_size, config.hidden_size)


def _resize(layer: nn.Module, config: Any, heads: int, width: int) -> None:
    """Give a layer fresh projections for ``heads`` heads and ``width`` units; checkpoint values are loaded later."""
    family = family_of(config)
    inner = heads * head_size(config)
    for path in (family.query, family.key, family.value):
        _replace(layer, path, outputs=inner)
    _replace(layer, family.attention_output, inputs=inner)
    _replace(layer, family.up, outputs=width)
    _replace(layer, family.down, inputs=width)


def _replace(layer: nn.Module, path: str, inputs: int | None = None, outputs: int | None = None) -> None:
    old = linear(layer, path)
    inputs, outputs = inputs or old.in_features, outputs or old.out_features
    if (inputs, outputs) != (old.in_features, old.out_features):
        replace_linear(layer, path, nn.Linear(inputs, outputs, dtype=old.weight.dtype))


UNEVEN_CLASSES = {name: _uneven(name, *classes) for name, classes in STOCK.items()}
globals().update({one.__name__: one for classes in UNEVEN_CLASSES.values() for one in classes})  # found by name too


def head_size(config: Any) -> int:
    """Return the width of one attention head."""
    return unpruned_size(config) // int(config.num_attention_heads)


def unpruned_size(config: Any) -> int:
    """Return the width of the states before any channel was removed."""
    return int(getattr(config, "unpruned_size", None) or config.hidden_size)


def kept_channels(config: Any) -> list[int]:
    """Return the hidden channels by their numbers in the unpruned model."""
    return getattr(config, "kept_channels", None) or list(range(config.hidden_size))


def kept_heads(config: Any) -> list[list[int]]:
    """Return each layer's heads by their numbers in the unpruned model."""
    kept = getattr(config, "kept_heads", None)
    return kept or [list(range(config.num_attention_heads)) for _ in range(config.num_hidden_layers)]


def neurons(config: Any) -> list[int]:
    """Return each layer's feed-forward units."""
    kept = getattr(config, "neurons", None)
    return kept or [int(getattr(config, family_of(config).neurons_key))] * int(config.num_hidden_layers)


def shrink(
    model: PreTrainedModel,
    *,
    heads: list[list[int]] | None = None,
    units: list[list[int]] | None = None,
    layers: list[int] | None = None,
) -> PreTrainedModel:
    """Return a model with only these parts, physically smaller; ``model`` is left as it was.

    All are positions in ``model`` as it is now: ``layers`` of all layers; ``heads`` and feed-forward ``units``
    by layer, of all its layers. None keeps all. What is kept computes exactly what it did; with nothing
    removed the model is the same. Raises ValueError where a layer would be left without heads or units, or the
    model without layers.
    """
    config, family = model.config, family_of(model.config)
    before = kept_heads(config), neurons(config)
    heads = heads if heads is not None else [list(range(len(names))) for names in before[0]]
    units = units if units is not None else [list(range(width)) for width in before[1]]
    layers = layers if layers is not None else list(range(len(heads)))
    if not layers or any(not heads[i] or not units[i] for i in layers):
        raise ValueError("a model must keep a layer, and every layer at least one head and one feed-forward unit")
    shape: dict[str, Any] = {
        "kept_heads": [[before[0][i][head] for head in heads[i]] for i in layers],
        "neurons": [len(units[i]) for i in layers],
        family.layers_key: len(layers),
    }
    if getattr(config, "teacher_layers", None):
        shape["teacher_layers"] = [config.teacher_layers[i] for i in layers]
    config_class, model_class = UNEVEN_CLASSES[family.model_type]
    settings = config.to_dict() | shape
    settings.pop("model_type")
    with quiet():
        smaller = model_class(config_class(**settings))
    smaller.set_attn_implementation(config._attn_implementation)
    smaller.load_state_dict(_kept_weights(model, heads, units, layers))
    nn.Module.to(smaller, model.device)
    smaller.train(model.training)
    return smaller


def _kept_weights(
    model: PreTrainedModel, heads: list[list[int]], units: list[list[int]], layers: list[int]
) -> dict[str, Tensor]:
    """Return the state dictionary of the smaller model."""
    family, size = family_of(model.config), head_size(model.config)
    prefix = f"{family.base}.{family.layers}."
    weights = model.state_dict()
    kept = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    for place, index in enumerate(layers):
        inner = torch.tensor([head * size + i for head in heads[index] for i in range(size)], device=model.device)
        wide = torch.tensor(units[index], device=model.device)
        rows = dict.fromkeys((family.query, family.key, family.value), inner) | {family.up: wide}
        columns = {family.attention_output: inner, family.down: wide}
        own = f"{prefix}{index}."
        for name in (name for name in weights if name.startswith(own)):
            path, _, part = name.removeprefix(own).rpartition(".")
            value = weights[name]
            if path in rows:
                value = value[rows[path]]
            elif path in columns and part == "weight":
                value = value[:, columns[path]]
            kept[f"{prefix}{place}.{path}.{part}"] = value
    return kept
