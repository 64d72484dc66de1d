"""BERT (Devlin et al., arXiv:1810.04805)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn
from transformers import BertConfig, PretrainedConfig

from compress.families.base import Family, LanguageHeadNames, Projection, has_submodule
from compress.families.registry import register


class BertFamily(Family):
    """BERT, and the layers of those that kept its names."""

    config_class: ClassVar[type[PretrainedConfig]] = BertConfig
    encoder = "bert"
    stack = "encoder.layer"
    loses_channels = True
    known_to_transformers_js = True
    reads_first_token_with_tanh = True

    def projections(self) -> tuple[Projection, ...]:
        """Return three linear layers."""
        return tuple(Projection(f"attention.self.{name}") for name in ("query", "key", "value"))

    def attention_output_name(self) -> str:
        """Return the name of attention's output layer."""
        return "attention.output.dense"

    def feed_forward(self) -> tuple[Projection, ...]:
        """Return the one layer that gives units."""
        return (Projection("intermediate.dense"),)

    def feed_forward_output_name(self) -> str:
        """Return the name of the layer that reads units."""
        return "output.dense"

    def attention_modules(self) -> tuple[str, ...]:
        """Return the module of attention, which normalises too."""
        return ("attention",)

    def feed_forward_modules(self) -> tuple[str, ...]:
        """Return the modules of the feed-forward network; the second normalises too."""
        return "intermediate", "output"

    def set_heads(self, layer: nn.Module, kept: Sequence[int], size: int) -> None:
        """Tell attention number and width of its heads, and the scale of its scores."""
        count = len(kept)
        attention: Any = layer.get_submodule("attention.self")
        attention.num_attention_heads, attention.all_head_size = count, count * size
        attention.attention_head_size, attention.scaling = size, size**-0.5

    def head(self, model: nn.Module) -> tuple[str, str] | None:
        """Return pooler and classifier."""
        pooler = f"{self.encoder}.{self.pooler}.dense"
        return (pooler, "classifier") if has_submodule(model, pooler) else None

    def language_head(self) -> LanguageHeadNames | None:
        """Return the transformation of predictions."""
        transform = "cls.predictions.transform"
        return LanguageHeadNames(f"{transform}.dense", f"{transform}.LayerNorm")

    def language_activation(self, config: Any) -> str:
        """Return the encoder's own activation."""
        return str(config.hidden_act)


register(BertFamily())
