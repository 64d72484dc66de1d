"""Directions of hidden states (DistilBERT, arXiv:1910.01108)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.tensors import total
from compress.models.quantities import HIDDEN
from compress.tensors import alike


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """One minus the cosine of hidden states (batch, tokens, hidden), mean over real positions.

    DistilBERT's alignment of directions (Sanh et al., arXiv:1910.01108).
    """
    real, (ours, theirs) = mask.bool(), alike(student, teacher)
    apart = 1 - functional.cosine_similarity(ours[real], theirs[real], dim=-1)
    return apart.sum() / max(apart.numel(), 1)


@register("cosine")
@dataclass(kw_only=True)
class Cosine(Loss):
    """Direction of mapped layers' hidden states, mean over layers (DistilBERT, arXiv:1910.01108)."""

    quantities = (HIDDEN,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the mean of `cosine_loss` over the mapped layers."""
        mask = comparison.student.mask
        terms = (cosine_loss(*comparison.of(HIDDEN, pair), mask) for pair in comparison.layers)
        return total(terms) / len(comparison.layers)
