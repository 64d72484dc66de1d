"""DistilBERT (Sanh et al., arXiv:1910.01108): BERT without token types and pooler, with names of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import DistilBertConfig

from compress.families.base import Family, LanguageHeadNames, Projection, has_submodule
from compress.families.registry import register


class DistilBertFamily(Family):
    """DistilBERT."""

    config_class = DistilBertConfig
    loses_channels = True
    encoder = "distilbert"
    stack = "transformer.layer"
    known_to_transformers_js = True
    units_entry = "hidden_dim"

    def projections(self) -> tuple[Projection, ...]:
        """Return three linear layers."""
        return tuple(Projection(f"attention.{name}") for name in ("q_lin", "k_lin", "v_lin"))

    def attention_output_name(self) -> str:
        """Return the name of attention's output layer."""
        return "attention.out_lin"

    def feed_forward(self) -> tuple[Projection, ...]:
        """Return the one layer that gives units."""
        return (Projection("ffn.lin1"),)

    def feed_forward_output_name(self) -> str:
        """Return the name of the layer that reads units."""
        return "ffn.lin2"

    def attention_modules(self) -> tuple[str, ...]:
        """Return attention and its normalisation."""
        return "attention", "sa_layer_norm"

    def feed_forward_modules(self) -> tuple[str, ...]:
        """Return the feed-forward network and its normalisation."""
        return "ffn", "output_layer_norm"

    def set_heads(self, layer: nn.Module, kept: Sequence[int], size: int) -> None:
        """Tell attention number and width of its heads, and the scale of its scores."""
        count = len(kept)
        attention: Any = layer.get_submodule("attention")
        attention.n_heads, attention.dim = count, count * size
        attention.attention_head_size, attention.scaling = size, size**-0.5

    def head(self, model: nn.Module) -> tuple[str, str] | None:
        """Return the two layers of the head."""
        return ("pre_classifier", "classifier") if has_submodule(model, "pre_classifier") else None

    def language_head(self) -> LanguageHeadNames | None:
        """Return the two parts before the projection to the vocabulary."""
        return LanguageHeadNames("vocab_transform", "vocab_layer_norm")

    def language_activation(self, config: Any) -> str:
        """Return the encoder's own activation."""
        return str(config.activation)


register(DistilBertFamily())
