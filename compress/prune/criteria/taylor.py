"""Squared gradients of gates (Molchanov et al., arXiv:1906.10771)."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from compress.prune.criteria.base import Batches, Criterion, register
from compress.prune.criteria.slopes import mean_slopes
from compress.prune.parts import Parts


@register("taylor")
class Taylor(Criterion):
    """E(∂L/∂ξ)² of a gate ξ on the part.

    The first-order Taylor estimate of the squared change of the loss without the part (Molchanov et al.,
    arXiv:1906.10771, eq. 8, for a gate).
    """

    def __call__(self, model: PreTrainedModel, parts: Parts, batches: Batches) -> list[Tensor]:
        """Return the mean over rows."""
        return mean_slopes(model, parts, batches, lambda slope: slope**2)
