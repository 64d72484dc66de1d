"""What a model is worth at every depth, cut without training again: LayerDrop's figure of depth on demand."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from compress.benchmark.figures import Cut, DepthCurve
from compress.families.forms.uneven import shrink
from compress.families.registry import layer_count
from compress.models.device import device
from compress.models.evaluate import predict_rows
from compress.models.loading import load_config, load_model, load_tokenizer
from compress.models.tokens import tokenize
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.prune.criteria import importance_of
from compress.prune.layers import PruneLayers, every_other
from compress.prune.rounds import choose
from compress.tasks.base import Array


class Depths(Enum):
    """Which layers leave first; auto: every_other where the student was trained with LayerDrop, else none."""

    auto = "auto"
    none = "none"
    every_other = "every_other"
    loss = "loss"
    gradient = "gradient"
    fisher = "fisher"
    molchanov = "molchanov"
    activation = "activation"


def depth_curve(state: State, model: Model, order: Depths, name: str, layer_drop: float) -> DepthCurve:
    """Return what ``model`` is worth at every depth, on the test rows.

    ``layer_drop`` is the rate that it was trained with, ``order`` how layers are chosen, as `PruneLayers` chooses them
    at once. Every cut is a smaller model.
    """
    pruner = PruneLayers() if order is Depths.every_other else PruneLayers(importance=order.value)
    chosen_by = order.value if order is Depths.every_other else pruner.chosen_by(state)

    def work(folder: Path) -> dict[str, Any]:
        loaded, tokenizer = load_model(model.folder, on=device()), load_tokenizer(model.folder)
        tokens = tokenize(state.data.test, tokenizer, tokenizer.model_max_length)
        kept = _kept(state, pruner, loaded, tokenizer, order)
        logits = [predict_rows(shrink(loaded, layers=layers), tokens, f"depth {len(layers)}") for layers in kept]
        np.save(folder / "logits.npy", np.stack(logits))
        return {"layers": [[layer + 1 for layer in layers] for layers in kept]}

    product = state.workshop.make(Kind("depths", revision=1), [model.key, chosen_by, state.data.test.fingerprint], work)
    task, labels = state.data.task, state.data.test.known_labels
    raw: Array = np.load(product.folder / "logits.npy", allow_pickle=False)
    logits = task.aligned(raw, load_config(model.folder))
    cuts = [
        Cut(layers=layers, metrics=task.metrics(answers, labels), interval=task.intervals(answers, labels))
        for layers, answers in zip(product.record["layers"], logits, strict=True)
    ]
    return DepthCurve(name=name, layer_drop=layer_drop, order=order.value, cuts=cuts)


def _kept(state: State, pruner: PruneLayers, model: PreTrainedModel, tokenizer: Any, order: Depths) -> list[list[int]]:
    """Return the positions of the layers to keep, for every depth from 1."""
    depths = range(1, layer_count(model.config) + 1)
    if order is Depths.every_other:
        return [every_other(len(depths), depth) for depth in depths]
    tokens = pruner.sample(state, tokenizer)
    batches = (tokens.batch(part) for part in tokens.batches(32))
    importance = importance_of(model, pruner.parts, batches, pruner.importance)
    return [choose(importance, depth, pruner.scope)[0] for depth in depths]
