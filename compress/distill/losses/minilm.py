"""Deep self-attention distillation of the last layer (MiniLM, arXiv:2002.10957)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.attention_transfer import minilm_attention_loss
from compress.distill.losses.base import Comparison, Loss, Pairs, register
from compress.distill.losses.relations import relation_loss


@register("minilm")
@dataclass(kw_only=True)
class MiniLM(Loss):
    """Attention distributions and value relations of the last layer (MiniLM, arXiv:2002.10957)."""

    needs_scores = True
    needs_relations = True

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Compare the last layers."""
        return (last,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return L_AT + L_VR, one relation head for each attention head."""
        student, teacher = comparison.last
        ours, theirs = comparison.probabilities(student, teacher)
        heads = ours.shape[1]
        values = comparison.teacher.values[teacher]
        kept = comparison.heads.get(comparison.last)
        if kept is not None:
            split = values.unflatten(-1, (comparison.teacher.scores[teacher].shape[1], -1))
            values = split[:, :, kept].flatten(2)
        mask = comparison.student.mask
        return minilm_attention_loss(ours, theirs, mask) + relation_loss(
            comparison.student.values[student], values, heads, mask
        )
