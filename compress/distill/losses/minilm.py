"""Deep self-attention distillation of the last layer (MiniLM, arXiv:2002.10957)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.attention_transfer import minilm_attention_loss
from compress.distill.losses.base import Comparison, Loss, Pairs, register
from compress.distill.losses.mean_over import MeanOver
from compress.distill.losses.relations import relation_loss
from compress.models.quantities import SCORES, VALUES


@register("minilm")
@dataclass(kw_only=True)
class MiniLM(Loss):
    """Attention distributions and value relations of the last layer (MiniLM, arXiv:2002.10957)."""

    mean_over = MeanOver.tokens
    quantities = (SCORES, VALUES)

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Compare the last layers."""
        return (last,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return L_AT + L_VR, one relation head for each attention head."""
        mask = comparison.student.mask
        scores, values = comparison.of(SCORES, comparison.last), comparison.of(VALUES, comparison.last)
        return minilm_attention_loss(*scores, mask) + relation_loss(*values, scores[0].shape[1], mask)
