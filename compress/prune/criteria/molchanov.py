"""Squared gradients of gates by mini-batch (Molchanov et al., arXiv:1906.10771)."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from compress.prune.criteria.base import Batches, Criterion, register
from compress.prune.criteria.slopes import mean_slopes
from compress.prune.parts import Parts


@register("molchanov")
class Molchanov(Criterion):
    """E(∂L/∂ξ)² of a gate ξ on the part, L the mean loss of a mini-batch.

    The first-order Taylor estimate of the squared change of the loss without the part (Molchanov et al.,
    arXiv:1906.10771, eq. 8, for a gate); that of arXiv:1611.06440, eq. 6, has the absolute value in place of the
    square. Rows of a batch that pull in opposite directions cancel out, which `fisher` does not let them.
    """

    def __call__(self, model: PreTrainedModel, parts: Parts, batches: Batches) -> list[Tensor]:
        """Return the mean over the mini-batches."""
        return mean_slopes(model, parts, batches, lambda slope: slope.mean(0, keepdim=True) ** 2)
