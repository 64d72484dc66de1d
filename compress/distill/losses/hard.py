"""Labels, as the task compares answers with them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver


@register("hard")
@dataclass(kw_only=True)
class HardLabels(Loss):
    """Labels: cross-entropy, or squared error for scores."""

    mean_over = MeanOver.labels
    needs_teacher = False

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the mean loss on labels; 0 on rows without labels."""
        if comparison.labels is None:
            return comparison.student.logits.sum() * 0
        return comparison.task.mean_loss(comparison.student.logits, comparison.labels)
