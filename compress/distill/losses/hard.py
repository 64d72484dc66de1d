"""Labels: cross-entropy, or squared error for scores."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, register


def hard_label_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats for whole-number labels, squared error for real ones; mean over labelled rows.

    Logits (batch, outputs), labels (batch,). Rows labelled -100 or NaN are left out; none left gives 0.
    """
    if labels.is_floating_point():
        known = ~labels.isnan()
        errors = (student[known, 0] - labels[known].to(student.dtype)) ** 2
    else:
        known = labels != -100
        errors = functional.cross_entropy(student[known], labels[known], reduction="none")
    return errors.sum() / known.sum().clamp(min=1)


@register("hard")
@dataclass(kw_only=True)
class HardLabels(Loss):
    """Labels: cross-entropy, or squared error for scores."""

    needs_teacher = False

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `hard_label_loss`; 0 on rows without labels."""
        if comparison.labels is None:
            return comparison.student.logits.sum() * 0
        return hard_label_loss(comparison.student.logits, comparison.labels)
