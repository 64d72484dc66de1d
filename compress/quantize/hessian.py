"""How curved the loss is around a student's weights: HAWQ-v2's measure of what quantizing them costs.

The second-order term of the loss's change by ΔW is ½ ΔWᵀ H ΔW; with ΔW in no particular direction its expectation
is proportional to the mean of H's eigenvalues times ‖ΔW‖² (Dong et al., arXiv:1911.03852, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.forms.fake_quantization import EMBEDDINGS, WEIGHTS, fake_quantize, weight_scale
from compress.models.tokens import Tokens
from compress.onnx.products import part_of
from compress.progress import progress
from compress.quantize.qdq import IntegerScheme
from compress.tasks.heads import logits_of
from compress.tasks.registry import task_of_config

ROWS_A_BATCH = 16


def omegas(model: PreTrainedModel, tokens: Tokens, scheme: IntegerScheme, probes: int, seed: int) -> dict[str, float]:
    """Return Ω = mean trace(H) · ‖Q(W) − W‖² by part of the model, summed over the part's matrices.

    H is the Hessian of the loss on labels, mean over the rows of ``tokens``. The model's settings, mode and gradients
    are left as they were.
    """
    weights = {
        name: module.weight for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Embedding))
    }
    highest = WEIGHTS[7 if scheme.reduce_range else 8]
    tables = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    batches = [tokens.batch(rows) for rows in tokens.batches(ROWS_A_BATCH)]
    task = task_of_config(model.config)

    def losses() -> Iterable[Tensor]:
        for batch in progress(batches, title="curvature", unit="batch"):
            inputs = {
                name: value for name, value in batch.items() if name in tokens.columns or name == "attention_mask"
            }
            share = len(batch["labels"]) / len(tokens)
            yield share * task.mean_loss(logits_of(model(**inputs)), batch["labels"])

    attention, training = model.config._attn_implementation, model.training
    model.set_attn_implementation("eager")  # fused attention has no second derivative
    model.eval()
    try:
        traces = hessian_traces(losses(), weights, probes, torch.Generator().manual_seed(seed))
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
    found: dict[str, float] = {}
    for name, weight in weights.items():
        per_channel, limit = (False, EMBEDDINGS) if name in tables else (scheme.per_channel, highest)
        error = squared_error(weight, per_channel, limit)
        found[part_of(name)] = found.get(part_of(name), 0.0) + traces[name] / weight.numel() * error
    return found


def hessian_traces(
    losses: Iterable[Tensor], weights: Mapping[str, Tensor], probes: int, generator: torch.Generator
) -> dict[str, float]:
    """Return Hutchinson's estimate of the trace of each weight's own block of the Hessian of the sum of ``losses``.

    E[vᵀ H v] is the trace for v of independent signs. Every weight has its v at once: what one adds to another's
    estimate has mean zero. New signs are drawn ``probes`` times for each loss.
    """
    names = list(weights)
    found = dict.fromkeys(names, 0.0)
    for loss in losses:
        slopes = torch.autograd.grad(loss, [weights[name] for name in names], create_graph=True, allow_unused=True)
        used = [(name, slope) for name, slope in zip(names, slopes, strict=True) if slope is not None]
        for _ in range(probes):
            signs = [_signs(slope, generator) for _, slope in used]
            curved: Sequence[Tensor | None] = torch.autograd.grad(
                [slope for _, slope in used], [weights[name] for name, _ in used], signs,
                retain_graph=True, allow_unused=True,
            )  # fmt: skip
            for (name, _), sign, product in zip(used, signs, curved, strict=True):
                if product is not None:
                    found[name] += float((sign * product).sum()) / probes
    return found


def squared_error(weight: Tensor, per_channel: bool, highest: int) -> float:
    """Return ‖Q(W) − W‖² of a weight (outputs, inputs) in symmetric integers up to ``highest``."""
    scale = weight_scale(weight, per_channel, highest)
    rounded = fake_quantize(weight.detach(), scale, torch.zeros_like(scale), -highest, highest)
    return float(((rounded - weight.detach()) ** 2).sum())


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1
