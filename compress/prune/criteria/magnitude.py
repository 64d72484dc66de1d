"""The size of a part's weights."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from compress.prune.criteria.base import Batches, Criterion, register
from compress.prune.parts import Parts, Weighed


@register("magnitude")
class Magnitude(Criterion):
    """The norm of the part's weights, as the part defines it; needs no rows."""

    needs: ClassVar[type] = Weighed

    def __call__(self, model: PreTrainedModel, parts: Parts, batches: Batches) -> list[Tensor]:
        """Return the norms."""
        assert isinstance(parts, Weighed)
        return parts.norms(model)
