"""How much the loss would miss each attention head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.distill.losses.functions import hard_label_loss
from compress.models.outputs import observe
from compress.models.uneven import kept_heads


def head_importance(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> list[Tensor]:
    """Return I_h = E_x |∂L(x)/∂ξ_h| for every head, one tensor (heads,) a layer.

    ξ_h multiplies what head h adds; L is the loss on the row's label; the mean of the absolute values is
    over rows, not over batches (Michel et al., arXiv:1905.10650, eq. 2). Not normalised. The model is run
    in evaluation mode; its own gradients stay untouched.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    totals = [torch.zeros(len(heads)) for heads in kept_heads(model.config)]
    rows = 0
    for given in batches:
        batch = {name: value.to(device) for name, value in given.items()}
        size = len(batch["input_ids"])
        gates = [torch.ones(size, len(total), device=device, requires_grad=True) for total in totals]
        # the mean over rows times the rows: each row's own gradient lands in its own row of the gates
        loss = hard_label_loss(observe(model, batch, gates=gates).logits, batch["labels"]) * size
        slopes = torch.autograd.grad(loss, gates)
        totals = [total + slope.abs().sum(0).cpu() for total, slope in zip(totals, slopes, strict=True)]
        rows += size
    model.train(training)
    return [total / max(rows, 1) for total in totals]


def normalised(importance: list[Tensor]) -> list[Tensor]:
    """Divide each layer's importance by its l2 norm, as Michel et al. do before comparing layers."""
    return [scores / scores.norm().clamp(min=1e-20) for scores in importance]
