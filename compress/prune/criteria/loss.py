"""The loss without the part."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.models.outputs import observe
from compress.prune.criteria.base import Batches, Criterion, on_device, register
from compress.prune.parts import Dispensable, Parts
from compress.tasks.registry import task_of_config


@register("loss")
class LossWithout(Criterion):
    """The mean loss on the rows' labels with the part left out: exact, and a pass over the rows for each part."""

    needs: ClassVar[type] = Dispensable

    @torch.no_grad()
    def __call__(self, model: PreTrainedModel, parts: Parts, batches: Batches) -> list[Tensor]:
        """Return the losses."""
        assert isinstance(parts, Dispensable)
        losses, batches = [torch.zeros(size) for size in parts.sizes(model.config)], list(batches)
        task = task_of_config(model.config)
        rows = sum(len(batch["input_ids"]) for batch in batches)
        for group, found in enumerate(losses):
            for part in range(len(found)):
                for batch in on_device(model, batches):
                    with parts.without(model, group, part):
                        logits = observe(model, batch).logits
                    found[part] += float(task.mean_loss(logits, batch["labels"])) * len(logits) / max(rows, 1)
        return losses
