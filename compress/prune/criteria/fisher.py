"""Squared gradients of gates, row by row: the diagonal of the empirical Fisher information."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from compress.prune.criteria.base import Batches, Criterion, register
from compress.prune.criteria.slopes import mean_slopes
from compress.prune.parts import Parts


@register("fisher")
class Fisher(Criterion):
    """E(∂L/∂ξ)² of a gate ξ on the part, L the loss of one row.

    The diagonal Fisher information of the gates, with the rows' own labels (Theis et al., arXiv:1801.05787, eq. 8).
    `compress.prune.criteria.molchanov` squares the mean over a mini-batch instead.
    """

    def __call__(self, model: PreTrainedModel, parts: Parts, batches: Batches) -> list[Tensor]:
        """Return the mean over rows."""
        return mean_slopes(model, parts, batches, lambda slope: slope**2)
