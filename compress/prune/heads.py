"""Attention heads: find those that the loss misses least, remove them physically, recover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from compress.errors import Fault
from compress.models.families import FAMILIES, can_be_taken_apart
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.models.tokens import tokenize
from compress.models.uneven import keep_heads, kept_heads
from compress.prune.importance import head_importance, normalised
from compress.settings import at_least, between
from compress.state import Model, Record, Stage, State
from compress.train import device


class Scope(Enum):
    """all: the least important heads of the whole model; layer: the same share of each layer."""

    all = "all"
    layer = "layer"


@dataclass(kw_only=True)
class PruneHeads(Stage):
    """Remove the attention heads that the loss misses least (Michel et al., arXiv:1905.10650)."""

    ratio: float = 0.3  # share of heads removed, over all layers; every layer keeps at least one
    steps: int = 1  # rounds of measuring, removing and recovering; more is gentler
    scope: Scope = Scope.all  # all: compare heads over the whole model; layer: same share in each layer
    rows: int = 512  # labelled training rows on which importance is measured
    recovery_epochs: float = 1.0  # distillation after pruning, all rounds together; 0: none

    def faults(self) -> Iterator[Any]:
        """Shares are shares, counts are counts."""
        yield from between(self, "ratio", 0, 1, open_high=True)
        yield from at_least(self, "steps", 1)
        yield from at_least(self, "rows", 1)
        yield from at_least(self, "recovery_epochs", 0)

    def model_faults(self, student: Any, teacher: Any) -> Iterator[Fault]:
        """Heads are removed from families that are known."""
        if not can_be_taken_apart(student):
            rule = f"cannot remove heads from a student of type {student.model_type}"
            yield Fault("ratio", self.ratio, rule, f"Supported: {', '.join(FAMILIES)}. Leave heads out of prune.")

    def __call__(self, state: State) -> State:
        """Return the state with a student of fewer heads."""
        student = state.given_student
        before = sum(len(heads) for heads in kept_heads(load_model(student.folder).config))
        curves: list[Any] = []
        seconds, reused = 0.0, True
        for step in range(1, self.steps + 1):
            remaining = before - round(self.ratio * before * step / self.steps)
            product = state.workshop.make(
                "heads",
                [student.key, remaining, self.scope.value, self.rows, state.data.train.fingerprint, state.seed],
                partial(self._remove, state, student, remaining),
            )
            student = Model(product.folder, product.key)
            seconds, reused = seconds + product.seconds, reused and product.reused
            if state.recover is not None and self.recovery_epochs > 0 and remaining < before:
                recovered, student = state.recover(state, student, self.recovery_epochs / self.steps)
                seconds, reused = seconds + recovered.seconds, reused and recovered.reused
                curves += recovered.record["curves"]
        layers = [len(heads) for heads in kept_heads(load_model(student.folder).config)]
        notes = (f"{before - sum(layers)} of {before} heads removed; heads left, layer by layer: {layers}",)
        record = Record("heads", type(self).__name__, student, seconds, reused, notes, tuple(curves))
        return state.with_record(record, student=student)

    def _remove(self, state: State, student: Model, remaining: int, folder: Path) -> dict[str, Any]:
        model, tokenizer = load_model(student.folder, on=device()), load_tokenizer(student.folder)
        rows = np.random.default_rng(state.seed).permutation(len(state.data.train))[: self.rows]
        tokens = tokenize(state.data.train.take(rows), tokenizer, tokenizer.model_max_length)
        importance = head_importance(model, (tokens.batch(part) for part in tokens.batches(32)))
        keep = choose(importance, remaining, self.scope)
        if any(len(heads) < len(scores) for heads, scores in zip(keep, importance, strict=True)):
            model = keep_heads(model, keep)
        save_model(model.cpu(), tokenizer, folder)
        return {"importance": [scores.tolist() for scores in importance]}


def choose(importance: list[Tensor], remaining: int, scope: Scope) -> list[list[int]]:
    """Return, a layer, the positions of the heads to keep: the ``remaining`` most important, one a layer at least.

    Over all layers importance is compared after dividing by each layer's norm; by layer, each keeps the
    same share, the largest remainders rounded up.
    """
    scores = normalised(importance)
    share = _shares([len(layer) for layer in scores], remaining) if scope is Scope.layer else None
    keep = [{int(layer.argmax())} for layer in scores]
    order = sorted(
        ((float(value), layer, head) for layer, s in enumerate(scores) for head, value in enumerate(s)), reverse=True
    )
    for _, layer, head in order:
        if share is None and sum(map(len, keep)) >= remaining:
            break
        if share is None or head in keep[layer] or len(keep[layer]) < share[layer]:
            keep[layer].add(head)
    return [sorted(heads) for heads in keep]


def _shares(sizes: list[int], remaining: int) -> list[int]:
    """Return how many heads each layer keeps: its proportion, at least one, largest remainders rounded up."""
    exact = [remaining * size / sum(sizes) for size in sizes]
    share = [max(1, int(value)) for value in exact]
    for layer in sorted(range(len(sizes)), key=lambda i: int(exact[i]) - exact[i]):
        if sum(share) < remaining and share[layer] < sizes[layer]:
            share[layer] += 1
    return share
