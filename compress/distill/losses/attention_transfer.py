"""Attention distributions (MobileBERT, arXiv:2004.02984; MiniLM, arXiv:2002.10957)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver
from compress.distill.losses.tensors import divergence, total
from compress.models.quantities import SCORES


def minilm_attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student) in nats of attention distributions, mean over heads and real queries.

    Scores before the softmax (batch, heads, tokens, tokens); mask (batch, tokens). L_AT of MiniLM (Wang et al.,
    arXiv:2002.10957, eq. 5), and the attention transfer of MobileBERT (arXiv:2004.02984, eq. 3).
    """
    return divergence(student, teacher, mask)


@register("attention_transfer")
@dataclass(kw_only=True)
class AttentionTransfer(Loss):
    """KL of attention distributions, summed over mapped layers (MobileBERT, arXiv:2004.02984, eq. 3)."""

    mean_over = MeanOver.tokens
    quantities = (SCORES,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the sum of `minilm_attention_loss` over the mapped layers."""
        mask = comparison.student.mask
        return total(minilm_attention_loss(*comparison.of(SCORES, pair), mask) for pair in comparison.layers)
