"""What criteria by gradients share: the derivative of the loss in a gate on every part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.models.outputs import observe
from compress.prune.criteria.base import Batches, on_device
from compress.prune.parts import Parts
from compress.tasks.registry import task_of_config


def mean_slopes(
    model: PreTrainedModel, parts: Parts, batches: Batches, size: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Return the mean of ``size`` of ∂L/∂ξ, L the loss on the row's label, ξ the row's gate of each part.

    ``size`` takes a batch's slopes (rows, parts) and returns what the mean is over, (rows or 1, parts).
    """
    sizes, task = parts.sizes(model.config), task_of_config(model.config)
    totals, terms = [torch.zeros(number) for number in sizes], 0
    for batch in on_device(model, batches):
        count = len(batch["input_ids"])
        gates = [torch.ones(count, number, device=batch["input_ids"].device, requires_grad=True) for number in sizes]
        with parts.gated(model, gates):
            logits = observe(model, batch).logits
        # the mean over rows times the rows: each row's own gradient lands in its own row of the gates
        loss = task.mean_loss(logits, batch["labels"]) * count
        measured = [size(slope) for slope in torch.autograd.grad(loss, gates)]
        totals = [total + found.sum(0).cpu() for total, found in zip(totals, measured, strict=True)]
        terms += len(measured[0])
    return [total / max(terms, 1) for total in totals]
