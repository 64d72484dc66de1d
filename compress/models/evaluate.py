"""Logits of a PyTorch model on many rows, and what they are worth."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from compress.models.outputs import observe
from compress.models.tokens import Tokens
from compress.progress import progress
from compress.tasks.base import Array, Task

TOKENS_A_BATCH = 4096


@torch.inference_mode()
def predict_rows(model: PreTrainedModel, tokens: Tokens, title: str | None = None) -> Array:
    """Return the logits (rows, outputs), fp32, in the order of the rows; leaves train/eval mode as it was."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    size = max(1, TOKENS_A_BATCH // int(tokens.lengths.max()))
    logits = np.zeros((len(tokens), int(model.config.num_labels or 1)), dtype=np.float32)
    with progress(total=len(tokens), title=title, unit="row") as bar:
        for rows in tokens.batches(size):
            batch = {name: value.to(device) for name, value in tokens.batch(rows).items()}
            logits[rows] = observe(model, batch).logits.float().cpu().numpy()
            bar.update(len(rows))
    model.train(training)
    return logits


def main_metric(model: PreTrainedModel, tokens: Tokens, task: Task) -> dict[str, float]:
    """Return the task's main metric on labelled rows; nothing when there are no rows."""
    if not len(tokens) or tokens.labels is None:
        return {}
    return {task.main_metric: task.metrics(predict_rows(model, tokens), tokens.labels)[task.main_metric]}


def metric_and_loss(model: PreTrainedModel, tokens: Tokens, task: Task) -> dict[str, float]:
    """Return the task's main metric on labelled rows, then their mean ``loss``; nothing when there are no rows.

    The loss is cross-entropy in nats for classes, squared error for scores.
    """
    if not len(tokens) or tokens.labels is None:
        return {}
    logits, labels = predict_rows(model, tokens), tokens.labels
    given, right = torch.from_numpy(logits), torch.from_numpy(labels)
    loss = (
        functional.mse_loss(given[:, 0], right) if labels.dtype.kind == "f" else functional.cross_entropy(given, right)
    )
    return {task.main_metric: task.metrics(logits, labels)[task.main_metric], "loss": float(loss)}
