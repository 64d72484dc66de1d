"""Squared error of the margins between candidates of a query (MarginMSE, Hofstätter et al., arXiv:2010.02666)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver


def margin_mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of margins (pairs,), score of a row less that of another; 0 without pairs (2010.02666, eq. 3).

    Scores may lie on any level: only differences within a group count.
    """
    return functional.mse_loss(student, teacher) if len(student) else student.sum()


@register("margin_mse")
@dataclass(kw_only=True)
class MarginMSE(Loss):
    """Margins between candidates of a query, squared error (MarginMSE, Hofstätter et al., arXiv:2010.02666).

    Pairs of rows of a group whose relevances differ; of unlabelled rows all pairs.
    """

    mean_over = MeanOver.differing_margins
    compares_rows = True

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `margin_mse_loss`."""
        ours, theirs = comparison.margins(differing=True)
        return margin_mse_loss(ours, theirs) if len(ours) else comparison.student.logits.sum() * 0
