"""DeBERTa v2 and v3 (He et al., arXiv:2006.03654, arXiv:2111.09543): BERT's layers with disentangled attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DebertaV2Config, PreTrainedModel

from compress.families.base import (
    Attention,
    LanguageHeadNames,
    Listener,
    Projection,
    has_submodule,
)
from compress.families.bert import BertFamily
from compress.families.registry import register


class DebertaV2Family(BertFamily):
    """DeBERTa v2 and v3, whose attention reads relative positions through the projections of words.

    Scores are sums of content to content, content to position and position to content.
    """

    config_class = DebertaV2Config
    encoder = "deberta"
    layers_return_tuples = True
    projects_tokens_alone = False  # relative positions too
    loses_channels = False  # relative positions, a table beside the layers, are as wide as the states
    sums_embeddings = False  # padding is zeroed
    reads_first_token_with_tanh = False
    graph_can_be_resized = False

    def unsupported(self, config: Any) -> str:
        """Return why a configuration cannot be taken apart: projections of positions alone, or a convolution."""
        if config.relative_attention and config.pos_att_type and not getattr(config, "share_att_key", False):
            return "with share_att_key = false"
        return "with a convolution (conv_kernel_size)" if getattr(config, "conv_kernel_size", 0) > 0 else ""

    def projections(self) -> tuple[Projection, ...]:
        """Return three linear layers."""
        return tuple(Projection(f"attention.self.{name}") for name in ("query_proj", "key_proj", "value_proj"))

    def sizes(
        self,
        *,
        layers: int | None = None,
        heads: int | None = None,
        hidden: int | None = None,
        units: int | None = None,
    ) -> dict[str, int]:
        """Return the entries of a configuration that say these sizes; the pooler is as wide as the states."""
        sizes = super().sizes(layers=layers, heads=heads, hidden=hidden, units=units)
        return sizes if hidden is None else sizes | {"pooler_hidden_size": hidden}

    def in_embeddings(self, name: str) -> bool:
        """Return whether a parameter comes before the layers, as relative positions do."""
        inner = name.removeprefix(f"{self.encoder}.")
        return super().in_embeddings(name) or inner.startswith(("encoder.rel_embeddings", "encoder.LayerNorm"))

    def set_heads(self, layer: nn.Module, kept: Sequence[int], size: int) -> None:
        """Tell attention number and width of its heads."""
        attention: Any = layer.get_submodule("attention.self")
        attention.num_attention_heads, attention.all_head_size = len(kept), len(kept) * size
        attention.attention_head_size = size

    def head(self, model: nn.Module) -> tuple[str, str] | None:
        """Return pooler and classifier."""
        return ("pooler.dense", "classifier") if has_submodule(model, "pooler.dense") else None

    def listening(self, model: PreTrainedModel, listener: Listener) -> AbstractContextManager[None]:
        """Run attention by hand, with the listener in its middle."""
        return self.heard(model, "attention.self", partial(_told, listener))

    def language_head(self) -> LanguageHeadNames | None:
        """Return none: its two kinds of heads have other names, and the newer one no decoder."""
        return None


def _told(
    listener: Listener, attention: Any, hidden_states: Tensor, attention_mask: Tensor, output_attentions: bool = False,
    query_states: Tensor | None = None, relative_pos: Tensor | None = None, rel_embeddings: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Compute what DeBERTa's attention does; what positions add is part of the scores."""
    heads, asking = attention.num_attention_heads, hidden_states if query_states is None else query_states
    reading = (
        (attention.query_proj, asking),
        (attention.key_proj, hidden_states),
        (attention.value_proj, hidden_states),
    )
    query, key, value = (attention.transpose_for_scores(part(states), heads) for part, states in reading)
    factor = 1 + sum(kind in attention.pos_att_type for kind in ("c2p", "p2c"))
    scores = query @ key.transpose(1, 2) / math.sqrt(query.size(-1) * factor)
    if attention.relative_attention:
        places = attention.pos_dropout(rel_embeddings)
        scores = scores + attention.disentangled_attention_bias(query, key, relative_pos, places, factor)
    query, key, value, scores = (part.view(-1, heads, *part.shape[1:]) for part in (query, key, value, scores))
    masked = scores.masked_fill(~attention_mask.bool(), torch.finfo(scores.dtype).min)
    probabilities = attention.dropout(masked.softmax(-1))
    passing = Attention(query, key, value, scores, probabilities @ value)
    listener(passing)
    return passing.context.transpose(1, 2).flatten(2), probabilities if output_attentions else None


register(DebertaV2Family())
