"""Attention distributions (MobileBERT, arXiv:2004.02984; MiniLM, arXiv:2002.10957)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.tensors import probabilities, real_pairs, total
from compress.models.quantities import SCORES
from compress.tensors import alike


def minilm_attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student) in nats of attention distributions, mean over heads and real queries.

    Probabilities (batch, heads, tokens, tokens), zero on padded keys; mask (batch, tokens). L_AT of MiniLM
    (Wang et al., arXiv:2002.10957, eq. 5), and the attention transfer of MobileBERT (arXiv:2004.02984, eq. 3).
    """
    pairs, (ours, theirs) = real_pairs(mask), alike(student, teacher)
    smallest = torch.finfo(ours.dtype).tiny
    q, p = (torch.where(pairs, given, 1.0).clamp(min=smallest) for given in (ours, theirs))
    terms = p * (p.log() - q.log())
    counted = torch.where(pairs & (theirs > 0), terms, 0.0)
    return counted.sum() / (mask.bool().sum() * ours.shape[1]).clamp(min=1)


@register("attention_transfer")
@dataclass(kw_only=True)
class AttentionTransfer(Loss):
    """KL of attention distributions, summed over mapped layers (MobileBERT, arXiv:2004.02984, eq. 3)."""

    quantities = (SCORES,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the sum of `minilm_attention_loss` over the mapped layers."""
        mask = comparison.student.mask
        return total(
            minilm_attention_loss(*probabilities(*comparison.of(SCORES, pair), mask), mask)
            for pair in comparison.layers
        )
