"""The output of the embedding layer (TinyBERT, arXiv:1909.10351)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.hidden import hidden_state_loss


@register("embeddings")
@dataclass(kw_only=True)
class Embeddings(Loss):
    """Squared error of the embedding layer's output (TinyBERT, arXiv:1909.10351)."""

    needs_embeddings = True

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `hidden_state_loss` of layer 0."""
        student, teacher = comparison.student, comparison.teacher
        return hidden_state_loss(student.hidden[0], teacher.hidden[0], student.mask)
