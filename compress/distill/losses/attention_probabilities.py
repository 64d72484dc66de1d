"""Attention probabilities, compared as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.distill.losses.attention import attention_loss
from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver
from compress.distill.losses.tensors import total
from compress.models.quantities import SCORES


@register("attention_probabilities")
@dataclass(kw_only=True)
class AttentionProbabilities(Loss):
    """Squared error of attention probabilities, summed over layers."""

    mean_over = MeanOver.token_pairs
    quantities = (SCORES,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the sum of `attention_loss` on softmaxed scores over the mapped layers."""
        mask = comparison.student.mask
        sides = (comparison.of(SCORES, pair) for pair in comparison.layers)
        return total(
            attention_loss(probabilities(ours, mask), probabilities(theirs, mask), mask) for ours, theirs in sides
        )


def probabilities(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax over real keys of attention scores (batch, heads, tokens, tokens)."""
    return scores.masked_fill(~mask.bool()[:, None, None, :], torch.finfo(scores.dtype).min).softmax(-1)
