"""Attention scores before the softmax (TinyBERT, arXiv:1909.10351)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver
from compress.distill.losses.tensors import real_pairs, total
from compress.models.quantities import SCORES
from compress.tensors import alike


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error of attention matrices (batch, heads, tokens, tokens), mean over heads and real pairs.

    Given scores before the softmax it is one layer's L_attn of TinyBERT (arXiv:1909.10351, eq. 7); given
    probabilities it compares what each head looks at. A pair counts where both positions are real.
    """
    pairs, (ours, theirs) = real_pairs(mask), alike(student, teacher)
    errors = torch.where(pairs, ours, 0.0) - torch.where(pairs, theirs, 0.0)
    return (errors**2).sum() / (pairs.sum() * student.shape[1]).clamp(min=1)


@register("attention")
@dataclass(kw_only=True)
class AttentionScores(Loss):
    """Squared error of attention scores before the softmax, summed over layers (TinyBERT, arXiv:1909.10351)."""

    weight: float = 0.1  # its factor in the sum; at 1, as in TinyBERT's own stage, it drowns other losses

    mean_over = MeanOver.token_pairs
    quantities = (SCORES,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the sum of `attention_loss` over the mapped layers."""
        mask = comparison.student.mask
        return total(attention_loss(*comparison.of(SCORES, pair), mask) for pair in comparison.layers)
