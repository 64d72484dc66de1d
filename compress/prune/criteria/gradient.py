"""Absolute gradients of gates (Michel et al., arXiv:1905.10650)."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from compress.prune.criteria.base import Batches, Criterion, register
from compress.prune.criteria.slopes import mean_slopes
from compress.prune.parts import Parts


@register("gradient")
class Gradient(Criterion):
    """E|∂L/∂ξ| of a gate ξ on the part (Michel et al., arXiv:1905.10650, eq. 2, for heads)."""

    def __call__(self, model: PreTrainedModel, parts: Parts, batches: Batches) -> list[Tensor]:
        """Return the mean over rows."""
        return mean_slopes(model, parts, batches, lambda slope: slope.abs())
