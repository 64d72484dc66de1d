"""Directions of hidden states (DistilBERT, arXiv:1910.01108)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, Pairs, register
from compress.distill.losses.mean_over import MeanOver
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
    """Direction of hidden states: of the last layers (DistilBERT, arXiv:1910.01108), or of all mapped ones."""

    mapped: bool = False  # compare all mapped layers, by their mean, instead of the last alone

    mean_over = MeanOver.tokens
    quantities = (HIDDEN,)

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Compare the last layers, or those that are mapped."""
        return layers if self.mapped else (last,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the mean of `cosine_loss` over the layers."""
        mask, pairs = comparison.student.mask, self.pairs(comparison.layers, comparison.last)
        return total(cosine_loss(*comparison.of(HIDDEN, pair), mask) for pair in pairs) / len(pairs)
