"""Logits of a PyTorch model on many rows, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from compress.models.outputs import observe
from compress.models.tokens import Tokens
from compress.progress import progress
from compress.tasks.base import Array, Task

TOKENS_A_BATCH = 4096


@torch.inference_mode()
def predict_rows(model: PreTrainedModel, tokens: Tokens, title: str | None = None) -> Array:
    """Return the logits, fp32, in the order of the rows, as `Tokens.gathered`; leaves train/eval mode as it was."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    size = max(1, TOKENS_A_BATCH // int(tokens.lengths.max()))

    def answers() -> Iterator[tuple[Array, Array]]:
        with progress(total=len(tokens), title=title, unit="row") as bar:
            for rows in tokens.batches(size):
                batch = {name: value.to(device) for name, value in tokens.batch(rows).items()}
                yield rows, observe(model, batch).logits.float().cpu().numpy()
                bar.update(len(rows))

    logits = tokens.gathered(answers())
    model.train(training)
    return logits


def main_metric(model: PreTrainedModel, tokens: Tokens, task: Task) -> dict[str, float]:
    """Return the task's main metric on labelled rows; nothing when there are no rows."""
    if not len(tokens) or tokens.labels is None:
        return {}
    return {task.main_metric: task.metrics(predict_rows(model, tokens), tokens.labels)[task.main_metric]}


def metric_and_loss(model: PreTrainedModel, tokens: Tokens, task: Task) -> dict[str, float]:
    """Return the task's main metric on labelled rows, then their mean ``loss``; nothing when there are no rows."""
    if not len(tokens) or tokens.labels is None:
        return {}
    logits, labels = predict_rows(model, tokens), tokens.labels
    loss = task.head_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    return {task.main_metric: task.metrics(logits, labels)[task.main_metric], "loss": float(loss)}


def tune(model: PreTrainedModel, tokens: Tokens, task: Task) -> None:
    """Write into a trained model's configuration how its answers are read, where the task tunes that, as thresholds.

    ``tokens`` are validation rows.
    """
    if len(tokens) and tokens.labels is not None:
        for name, value in task.tuned(lambda: predict_rows(model, tokens), tokens.labels).items():
            setattr(model.config, name, value)
