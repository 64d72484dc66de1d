"""Attention probabilities, compared as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.attention import attention_loss
from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.tensors import probabilities, total
from compress.models.quantities import SCORES


@register("attention_probabilities")
@dataclass(kw_only=True)
class AttentionProbabilities(Loss):
    """Squared error of attention probabilities, summed over layers."""

    quantities = (SCORES,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the sum of `attention_loss` on softmaxed scores over the mapped layers."""
        mask = comparison.student.mask
        return total(
            attention_loss(*probabilities(*comparison.of(SCORES, pair), mask), mask) for pair in comparison.layers
        )
