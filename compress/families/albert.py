"""ALBERT (Lan et al., arXiv:1909.11942): BERT's layers, which may share weights; embeddings are projected."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import AlbertConfig, PreTrainedModel

from compress.families.base import (
    Family,
    LanguageHeadNames,
    Projection,
    SummedEmbeddings,
    Value,
    has_submodule,
    linear,
    summed,
)
from compress.families.registry import register

_ONE = "albert_layers.0."  # a group's only layer


class AlbertFamily(Family):
    """ALBERT. transformers keeps its layers in groups: one group is a shared layer, as many as layers share nothing.

    Students by layers have a group for each layer. A configuration in between has layers that share weights too.
    """

    config_class = AlbertConfig
    encoder = "albert"
    stack = "encoder.albert_layer_groups"
    loses_channels = True
    known_to_transformers_js = True
    lacking_in_transformers_js = ("token classification",)
    reads_first_token_with_tanh = True

    def unsupported(self, config: Any) -> str:
        """Return why a configuration cannot be taken apart: a group is more than a layer, or is never used."""
        if config.inner_group_num != 1:
            return f"with inner_group_num = {config.inner_group_num}"
        unused = config.num_hidden_groups > config.num_hidden_layers
        return f"with num_hidden_groups = {config.num_hidden_groups}, more than layers," if unused else ""

    def shares_weights(self, config: Any) -> bool:
        """Return whether there are fewer groups than layers."""
        return int(config.num_hidden_groups) < int(config.num_hidden_layers)

    def sharing(self, layers: int) -> dict[str, Any]:
        """Return the entries for one group."""
        return self.sizes(layers=layers) | {"num_hidden_groups": 1}

    def sizes(
        self,
        *,
        layers: int | None = None,
        heads: int | None = None,
        hidden: int | None = None,
        units: int | None = None,
    ) -> dict[str, int]:
        """Return the entries of a configuration that say these sizes; each layer is a group."""
        sizes = super().sizes(layers=layers, heads=heads, hidden=hidden, units=units)
        return sizes if layers is None else sizes | {"num_hidden_groups": layers}

    def layers(self, model: nn.Module) -> nn.ModuleList:
        """Return the layers in the order in which they run; a shared one is listed as often as it runs."""
        groups: Any = model.get_submodule(f"{self.encoder}.{self.stack}")
        config: Any = model.config
        return nn.ModuleList(groups[group].albert_layers[0] for group in _groups(config))

    @contextmanager
    def running(self, model: nn.Module, layers: Sequence[nn.Module]) -> Iterator[None]:
        """Let a model run through other layers, for a time; their number is read from the configuration."""
        encoder: Any = model.get_submodule(f"{self.encoder}.encoder")
        groups, config = encoder.albert_layer_groups, encoder.config
        encoder.albert_layer_groups, encoder.config = nn.ModuleList(layers), copy.copy(config)
        encoder.config.num_hidden_layers = encoder.config.num_hidden_groups = len(layers)
        try:
            yield
        finally:
            encoder.albert_layer_groups, encoder.config = groups, config

    def by_layer(self, config: Any, named: Mapping[str, Value]) -> dict[str, Value]:
        """Return each layer's under its own number."""
        if not self.shares_weights(config):
            return dict(named)
        groups, found = _groups(config), dict[str, Value]()
        for name, value in named.items():
            place = self.place(name)
            if place is None:
                found[name] = value
            else:
                found |= {self.moved(name, layer): value for layer, group in enumerate(groups) if group == place[0]}
        return found

    def place(self, name: str) -> tuple[int, str] | None:
        """Return the layer of a parameter, and its name there; of one that layers share, the number of its group."""
        place = super().place(name)
        return None if place is None else (place[0], place[1].removeprefix(_ONE))

    def named(self, layer: int, name: str) -> str:
        """Return the name in a model with a head of what is called ``name`` in a layer, counted from 0."""
        return super().named(layer, _ONE + name)

    def moved(self, name: str, layer: int) -> str:
        """Return the name of the same parameter in another layer; one outside the layers keeps its name."""
        place = self.place(name)
        if place is None:
            return name
        return f"{name.removesuffix(f'{place[0]}.{_ONE}{place[1]}')}{layer}.{_ONE}{place[1]}"

    def embedders(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the embeddings and their projection."""
        return [*super().embedders(model), self._project(model)]

    def embeddings(self, model: PreTrainedModel) -> SummedEmbeddings:
        """Return the sum of words, positions and types, with its projection."""
        return summed(self.embedders(model)[0], self._project(model))

    def _project(self, model: PreTrainedModel) -> nn.Linear:
        return linear(model.base_model, "encoder.embedding_hidden_mapping_in")

    def in_embeddings(self, name: str) -> bool:
        """Return whether a parameter comes before the layers, as the projection does."""
        return super().in_embeddings(name) or ".embedding_hidden_mapping_in" in f".{name}"

    def projections(self) -> tuple[Projection, ...]:
        """Return three linear layers."""
        return tuple(Projection(f"attention.{name}") for name in ("query", "key", "value"))

    def attention_output_name(self) -> str:
        """Return the name of attention's output layer."""
        return "attention.dense"

    def feed_forward(self) -> tuple[Projection, ...]:
        """Return the one layer that gives units."""
        return (Projection("ffn"),)

    def feed_forward_output_name(self) -> str:
        """Return the name of the layer that reads units."""
        return "ffn_output"

    def attention_modules(self) -> tuple[str, ...]:
        """Return the module of attention, which normalises too."""
        return ("attention",)

    def feed_forward_modules(self) -> tuple[str, ...]:
        """Return the feed-forward network and its normalisation."""
        return "ffn", "ffn_output", "full_layer_layer_norm"

    def set_heads(self, layer: nn.Module, kept: Sequence[int], size: int) -> None:
        """Tell attention number and width of its heads, and the scale of its scores."""
        attention: Any = layer.get_submodule("attention")
        attention.num_attention_heads, attention.all_head_size = len(kept), len(kept) * size
        attention.attention_head_size, attention.scaling = size, size**-0.5

    def head(self, model: nn.Module) -> tuple[str, str] | None:
        """Return pooler and classifier."""
        pooler = f"{self.encoder}.{self.pooler}"
        return (pooler, "classifier") if has_submodule(model, pooler) else None

    def language_head(self) -> LanguageHeadNames | None:
        """Return the two parts before the decoder."""
        return LanguageHeadNames("predictions.dense", "predictions.LayerNorm")

    def language_activation(self, config: Any) -> str:
        """Return the encoder's own activation."""
        return str(config.hidden_act)


def _groups(config: Any) -> list[int]:
    """Return the group of each layer, as transformers' encoder finds it."""
    layers, groups = int(config.num_hidden_layers), int(config.num_hidden_groups)
    return [int(layer / (layers / groups)) for layer in range(layers)]


register(AlbertFamily())
