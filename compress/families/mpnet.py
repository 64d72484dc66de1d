"""MPNet (Song et al., arXiv:2004.09297): BERT's layers, and a bias of relative positions that all of them share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MPNetConfig, PreTrainedModel

from compress.families.base import (
    Attention,
    LanguageHeadNames,
    Listener,
    Projection,
    has_submodule,
)
from compress.families.bert import BertFamily
from compress.families.registry import register


class MPNetFamily(BertFamily):
    """MPNet. Attention never asks transformers for its function."""

    config_class = MPNetConfig
    encoder = "mpnet"
    reads_first_token_with_tanh = True
    layers_return_tuples = True

    def projections(self) -> tuple[Projection, ...]:
        """Return three linear layers."""
        return tuple(Projection(f"attention.attn.{name}") for name in ("q", "k", "v"))

    def attention_output_name(self) -> str:
        """Return the name of attention's output layer."""
        return "attention.attn.o"

    def in_embeddings(self, name: str) -> bool:
        """Return whether a parameter comes before the layers, as the bias of positions does."""
        return super().in_embeddings(name) or "relative_attention_bias" in name

    def set_heads(self, layer: nn.Module, kept: Sequence[int], size: int) -> None:
        """Tell attention number and width of its heads, and let it take their part of the bias of positions."""
        attention: Any = layer.get_submodule("attention.attn")
        attention.num_attention_heads, attention.all_head_size = len(kept), len(kept) * size
        attention.attention_head_size = size
        attention.register_forward_pre_hook(partial(_own_bias, list(kept)))

    def tables_by_head(self) -> tuple[str, ...]:
        """Return the bias of positions."""
        return ("encoder.relative_attention_bias.weight",)

    def widen(self, model: PreTrainedModel, config: Any) -> None:
        """Give the bias of positions its heads, which narrow states hide."""
        super().widen(model, config)
        encoder: Any = model.base_model.get_submodule("encoder")
        encoder.relative_attention_bias = nn.Embedding(
            config.relative_attention_num_buckets, config.num_attention_heads
        )

    def head(self, model: nn.Module) -> tuple[str, str] | None:
        """Return the two layers of the head."""
        return ("classifier.dense", "classifier.out_proj") if has_submodule(model, "classifier.dense") else None

    def listening(self, model: PreTrainedModel, listener: Listener) -> AbstractContextManager[None]:
        """Run attention by hand, with the listener in its middle."""
        return self.heard(model, "attention.attn", partial(_told, listener))

    def language_head(self) -> LanguageHeadNames | None:
        """Return the two parts before the decoder."""
        return LanguageHeadNames("lm_head.dense", "lm_head.layer_norm")

    def language_activation(self, config: Any) -> str:
        """Return gelu, whatever the encoder's activation."""
        return "gelu"


def _own_bias(kept: list[int], attention: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what attention is given, the bias (batch, heads, tokens, tokens) being that of the ``kept`` heads."""
    states, mask, bias = given
    return states, mask, bias.index_select(1, torch.tensor(kept, device=bias.device))


def _told(
    listener: Listener, attention: Any, hidden_states: Tensor, attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None, output_attentions: bool = False, **_: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Compute what MPNet's attention does; the bias of positions is part of the scores."""
    sizes = (*hidden_states.shape[:2], -1, attention.attention_head_size)
    query, key, value = (
        part(hidden_states).view(sizes).transpose(1, 2) for part in (attention.q, attention.k, attention.v)
    )
    scores = query @ key.transpose(2, 3) / math.sqrt(attention.attention_head_size)
    scores = scores if position_bias is None else scores + position_bias
    masked = scores if attention_mask is None else scores + attention_mask
    probabilities = attention.dropout(masked.softmax(-1))
    passing = Attention(query, key, value, scores, probabilities @ value)
    listener(passing)
    mixed: Tensor = attention.o(passing.context.transpose(1, 2).flatten(2))
    return (mixed, probabilities) if output_attentions else (mixed,)


register(MPNetFamily())
