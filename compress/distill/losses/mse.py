"""Squared error of the logits (Ba & Caruana, arXiv:1312.6184)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver
from compress.tensors import alike


def logits_mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of the logits (batch, outputs), mean over both (Ba & Caruana, arXiv:1312.6184)."""
    return functional.mse_loss(*alike(student, teacher))


@register("mse")
@dataclass(kw_only=True)
class LogitsMSE(Loss):
    """Squared error of the logits (Ba & Caruana, arXiv:1312.6184)."""

    mean_over = MeanOver.answers

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `logits_mse_loss`."""
        ours, theirs = comparison.answers
        return comparison.mean(logits_mse_loss, ours, theirs) if len(ours) else ours.sum()
