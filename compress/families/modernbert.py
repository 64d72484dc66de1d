"""ModernBERT (Warner et al., arXiv:2412.13663): rotary positions, local and global attention, gated units."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import ModernBertConfig, PreTrainedModel
from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding

from compress.families.base import Family, LanguageHeadNames, Projection, has_submodule
from compress.families.registry import register


class ModernBertFamily(Family):
    """ModernBERT. Each layer keeps its own reach, local or global, when others leave."""

    config_class = ModernBertConfig
    encoder = "model"
    stack = "layers"
    loses_channels = True
    known_to_transformers_js = True
    lacking_in_transformers_js = ("question answering",)
    sums_embeddings = False
    shares_layers = False
    norm_eps_entry = "norm_eps"

    def projections(self) -> tuple[Projection, ...]:
        """Return the fused one."""
        return (Projection("attn.Wqkv", holds=3),)

    def attention_output_name(self) -> str:
        """Return the name of attention's output layer."""
        return "attn.Wo"

    def feed_forward(self) -> tuple[Projection, ...]:
        """Return the one layer that gives units and their gates."""
        return (Projection("mlp.Wi", holds=2),)

    def feed_forward_output_name(self) -> str:
        """Return the name of the layer that reads units."""
        return "mlp.Wo"

    def attention_modules(self) -> tuple[str, ...]:
        """Return attention and the normalisation before it."""
        return "attn_norm", "attn"

    def feed_forward_modules(self) -> tuple[str, ...]:
        """Return the feed-forward network and the normalisation before it."""
        return "mlp_norm", "mlp"

    def of_layers(self, config: Any, layers: Sequence[int]) -> dict[str, Any]:
        """Return the reach of these layers."""
        return {"layer_types": [config.layer_types[layer] for layer in layers]}

    def left_layers(self, config: Any, layers: Sequence[int]) -> dict[str, Any]:
        """Return their reach, and whether the first of them is normalised: transformers' first layer is not."""
        normed = layers[0] > 0 or getattr(config, "first_layer_normed", False)
        return self.of_layers(config, layers) | {"first_layer_normed": normed}

    def remarks(self, config: Any) -> tuple[str, ...]:
        """Say so where no layer attends to whole rows any more."""
        if "full_attention" in config.layer_types:
            return ()
        reach = config.local_attention // 2
        return (f"no global layer is left: none attends to more than {reach} tokens on either side of a token",)

    def resize(self, layer: nn.Module, inner: int, units: int) -> None:
        """Give the first layer the normalisation that it has, too, where it was another layer of the whole model."""
        super().resize(layer, inner, units)
        here: Any = layer
        if here.layer_idx == 0 and getattr(here.config, "first_layer_normed", False):
            here.attn_norm = _norm(here.config, here.config.hidden_size)

    def set_heads(self, layer: nn.Module, kept: Sequence[int], size: int) -> None:
        """Tell attention the width of its heads."""
        attention: Any = layer.get_submodule("attn")
        attention.head_dim = size

    def widen(self, model: PreTrainedModel, config: Any) -> None:
        """Give the head's normalisation the width of its hidden layer, and positions that of a head."""
        super().widen(model, config)
        if self.head(model) is not None:
            model.get_submodule("head").norm = _norm(config, config.unpruned_size)
        whole = copy.copy(config)
        whole.head_dim = config.unpruned_size // config.num_attention_heads
        encoder: Any = model.base_model
        encoder.rotary_emb = ModernBertRotaryEmbedding(whole)

    def stream(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return what gives states as they are read; the last is the normalisation above all layers."""
        return [*super().stream(model), model.base_model.get_submodule("final_norm")]

    def head(self, model: nn.Module) -> tuple[str, str] | None:
        """Return the two layers of the head."""
        return ("head.dense", "classifier") if has_submodule(model, "classifier") else None

    def language_head(self) -> LanguageHeadNames | None:
        """Return the two parts before the decoder; a classifier has parts of the same names."""
        return LanguageHeadNames("head.dense", "head.norm", "decoder.bias")

    def language_activation(self, config: Any) -> str:
        """Return the head's own activation."""
        return str(config.classifier_activation)


def _norm(config: Any, width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.norm_bias)


register(ModernBertFamily())
