"""What a model says about a batch, the same for every family: logits, hidden states, attentions.

Attention scores, and the gate that head importance is measured with, come from one attention function
that is registered with transformers; a model runs it only inside `observe`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from compress.models.ensemble import principal

OBSERVED = "compress_observed"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Outputs:
    """A model's answers for one batch. Layers are counted from the first; hidden 0 is the embeddings."""

    logits: Tensor  # (batch, outputs)
    mask: Tensor  # (batch, tokens), 1 on real tokens
    hidden: Mapping[int, Tensor]  # 0 … layers -> (batch, tokens, hidden)
    scores: Mapping[int, Tensor]  # 1 … layers -> (batch, heads, tokens, tokens), before masking and softmax
    queries: Mapping[int, Tensor] = field(default_factory=dict)  # 1 … layers -> (batch, tokens, heads * head size)
    keys: Mapping[int, Tensor] = field(default_factory=dict)  # as the queries
    values: Mapping[int, Tensor] = field(default_factory=dict)  # as the queries


@dataclass
class _Observer:
    gates: list[Tensor] | None
    scores: list[Tensor]
    projections: list[tuple[Tensor, Tensor, Tensor]]


_observer: ContextVar[_Observer | None] = ContextVar("observer", default=None)


def _observed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Compute softmax(QKᵀ·scaling + mask)V, noting the scores and applying the gates of `observe`."""
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(2, 3) * scaling
    masked = scores if attention_mask is None else scores + attention_mask
    probabilities = nn.functional.dropout(masked.softmax(-1), dropout, module.training)
    context = probabilities @ value
    observer = _observer.get()
    if observer is not None:
        if observer.gates is not None:
            context = context * observer.gates[len(observer.scores)][:, :, None, None]
        observer.scores.append(scores)
        observer.projections.append((query, key, value))
    return context.transpose(1, 2).contiguous(), probabilities


AttentionInterface.register(OBSERVED, _observed_attention)
AttentionMaskInterface.register(OBSERVED, eager_mask)


@contextmanager
def _observed(model: PreTrainedModel, observer: _Observer) -> Iterator[None]:
    before = model.config._attn_implementation
    token = _observer.set(observer)
    model.set_attn_implementation(OBSERVED)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        _observer.reset(token)


def observe(
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    *,
    hidden: bool = False,
    scores: bool = False,
    relations: bool = False,
    gates: list[Tensor] | None = None,
) -> Outputs:
    """Run ``model`` on a batch and return what is asked for.

    ``gates``, one tensor (batch, heads) a layer, multiplies what each head adds, row by row; with it the
    gradient of a loss in the gates can be taken. ``relations`` asks for queries, keys and values. Gates, scores
    and relations run attention in plain matrix products. Of an ensemble all but the logits are its chosen member's.
    """
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    observer = _Observer(gates, [], [])
    if not scores and not relations and gates is None:
        said = model(**inputs, output_hidden_states=hidden)
    else:
        with _observed(principal(model), observer):
            said = model(**inputs, output_hidden_states=hidden)
    queries, keys, values = (
        {layer: _joined(said[part]) for layer, said in enumerate(observer.projections, start=1)} if relations else {}
        for part in range(3)
    )
    states = said.hidden_states if hidden else ()
    return Outputs(
        logits=said.logits,
        mask=batch["attention_mask"],
        hidden=dict(enumerate(states)),
        scores=dict(enumerate(observer.scores, start=1)),
        queries=queries,
        keys=keys,
        values=values,
    )


def _joined(heads: Tensor) -> Tensor:
    """(batch, heads, tokens, size) to (batch, tokens, heads * size)."""
    return heads.transpose(1, 2).flatten(2)


@torch.no_grad()
def parameters(model: nn.Module) -> int:
    """Return the number of parameters, shared ones counted once."""
    return sum(p.numel() for p in model.parameters())
