"""How active a part is on rows."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.prune.criteria.base import Batches, Criterion, on_device, register
from compress.prune.parts import Active, Parts


@register("activation")
class Activation(Criterion):
    """The part's activity, as the part defines it: mean over real tokens. For layers it is their block influence."""

    needs: ClassVar[type] = Active

    @torch.no_grad()
    def __call__(self, model: PreTrainedModel, parts: Parts, batches: Batches) -> list[Tensor]:
        """Return the mean."""
        assert isinstance(parts, Active)
        totals, tokens = [torch.zeros(size) for size in parts.sizes(model.config)], 0
        for batch in on_device(model, batches):
            sums, count = parts.activity(model, batch)
            totals = [total + part for total, part in zip(totals, sums, strict=True)]
            tokens += count
        return [total / max(tokens, 1) for total in totals]
