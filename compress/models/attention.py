"""Attention that can be watched: one function in place of a model's own, which tells what passes through it.

It is registered with transformers; a model runs it only inside `listening`. A family whose attention does not ask
transformers for its function says itself how it is watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from compress.families.base import Attention, Listener
from compress.families.registry import EXITING, FAKE_QUANTIZED, SHARED, UNEVEN, family_behind

OBSERVED = "compress_observed"


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
    _tell(attention)
    return attention.context.transpose(1, 2).contiguous(), probabilities


AttentionInterface.register(OBSERVED, _observed_attention)
AttentionMaskInterface.register(OBSERVED, eager_mask)


@contextmanager
def listening(model: PreTrainedModel, listener: Listener) -> Iterator[None]:
    """Call ``listener`` for every attention of ``model``, first layer to last; listeners may be nested.

    Attention then runs in plain matrix products.
    """
    token = _listeners.set((*_listeners.get(), listener))
    family = family_behind(str(model.config.model_type), SHARED, UNEVEN, FAKE_QUANTIZED, EXITING)
    try:
        with (None if family is None else family.listening(model, _tell)) or _observed(model):
            yield
    finally:
        _listeners.reset(token)


def is_watched() -> bool:
    """Return whether somebody listens to the attention of the model that runs."""
    return bool(_listeners.get())


@contextmanager
def _observed(model: PreTrainedModel) -> Iterator[None]:
    """Let a model ask transformers for `_observed_attention`, for a time."""
    before = model.config._attn_implementation
    if before != OBSERVED:
        model.set_attn_implementation(OBSERVED)
    try:
        yield
    finally:
        if before != OBSERVED:
            model.set_attn_implementation(before)


def _tell(attention: Attention) -> None:
    for listener in _listeners.get():
        listener(attention)


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
