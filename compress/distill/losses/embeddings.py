"""The output of the embedding layer (TinyBERT, arXiv:1909.10351)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, Pairs, register
from compress.distill.losses.hidden import hidden_state_loss
from compress.distill.losses.mean_over import MeanOver
from compress.models.quantities import HIDDEN


@register("embeddings")
@dataclass(kw_only=True)
class Embeddings(Loss):
    """Squared error of the embedding layer's output (TinyBERT, arXiv:1909.10351)."""

    mean_over = MeanOver.tokens
    quantities = (HIDDEN,)

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Compare what comes before the first layer of both."""
        return ((0, 0),)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `hidden_state_loss` of layer 0."""
        return hidden_state_loss(*comparison.of(HIDDEN, (0, 0)), comparison.student.mask)
