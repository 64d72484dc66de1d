"""Attention that can be watched: one function in place of a model's own, which tells what passes through it.

It is registered with transformers; a model runs it only inside `listening`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

OBSERVED = "compress_observed"


@dataclass
class Attention:
    """What passes through one layer's attention. A listener may put another ``context`` in its place."""

    query: Tensor  # (batch, heads, tokens, head size)
    key: Tensor  # as the query
    value: Tensor  # as the query
    scores: Tensor  # (batch, heads, tokens, tokens), before masking and softmax
    context: Tensor  # (batch, heads, tokens, head size): what each head hands on


Listener = Callable[[Attention], None]

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


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
    """Compute softmax(QKᵀ·scaling + mask)V, telling the listeners."""
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(2, 3) * scaling
    masked = scores if attention_mask is None else scores + attention_mask
    probabilities = nn.functional.dropout(masked.softmax(-1), dropout, module.training)
    attention = Attention(query, key, value, scores, probabilities @ value)
    for listener in _listeners.get():
        listener(attention)
    return attention.context.transpose(1, 2).contiguous(), probabilities


AttentionInterface.register(OBSERVED, _observed_attention)
AttentionMaskInterface.register(OBSERVED, eager_mask)


@contextmanager
def listening(model: PreTrainedModel, listener: Listener) -> Iterator[None]:
    """Call ``listener`` for every attention of ``model``, first layer to last; listeners may be nested.

    Attention then runs in plain matrix products.
    """
    before = model.config._attn_implementation
    token = _listeners.set((*_listeners.get(), listener))
    if before != OBSERVED:
        model.set_attn_implementation(OBSERVED)
    try:
        yield
    finally:
        if before != OBSERVED:
            model.set_attn_implementation(before)
        _listeners.reset(token)


@contextmanager
def gated(model: PreTrainedModel, gates: Sequence[Tensor]) -> Iterator[None]:
    """Multiply what each head hands on by a gate; ``gates`` are (batch, heads), one for each layer that runs.

    With it the gradient of a loss in the gates can be taken, row by row.
    """
    left = iter(gates)

    def gate(attention: Attention) -> None:
        attention.context = attention.context * next(left)[:, :, None, None]

    with listening(model, gate):
        yield
