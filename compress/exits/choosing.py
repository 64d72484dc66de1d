"""How soon rows may leave: what a rule is worth at each threshold, by what every head answers to the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from compress.families.forms.exiting import ENTROPY, PATIENCE, ExitRule, standings
from compress.tasks.base import Array, Task
from compress.tasks.gate import POINT

SPOTS = 20  # thresholds of the entropy that are tried: so many quantiles of what the heads' answers have
ROUNDING = 1e-9  # 0.90 - 0.85 is a little more than 0.05


@dataclass(frozen=True, kw_only=True)
class ExitWorth:
    """What it is worth to let rows leave by a rule."""

    metric: float  # the main one
    layers: float  # that a row takes on average, by itself


def leaving(rule: ExitRule, logits: Array) -> tuple[Array, Array]:
    """Return after which layer each row leaves (rows,), counted from 1, and with which logits (rows, outputs).

    ``logits`` are those of every head, (heads, rows, outputs).
    """
    stands = standings(rule, [torch.from_numpy(own) for own in logits])
    left = np.stack([np.asarray(stand.left) for stand in stands[:-1]])  # it stays true
    return len(logits) - left.sum(0), stands[-1].answer.numpy()


def worth(rule: ExitRule, logits: Array, task: Task, labels: Array) -> ExitWorth:
    """Return what rows with these labels are answered, by the logits of every head (heads, rows, outputs)."""
    layers, answers = leaving(rule, logits)
    return ExitWorth(metric=task.metrics(answers, labels)[task.main_metric], layers=float(layers.mean()))


def thresholds(rule: ExitRule, logits: Array) -> list[float]:
    """Return the thresholds to try, the last of which lets no row leave before the last layer."""
    if rule.rule == PATIENCE:
        return [float(patience) for patience in range(1, len(logits))]
    assert rule.rule == ENTROPY
    shares = torch.log_softmax(torch.from_numpy(logits[:-1]).double(), -1)
    entropies = -(shares.exp() * shares).sum(-1).numpy()
    return sorted({float(value) for value in np.quantile(entropies, np.linspace(0, 1, SPOTS + 1))} | {0.0})[::-1]


def chosen(tried: Sequence[ExitRule], values: Sequence[ExitWorth], alone: float, max_drop: float) -> ExitRule:
    """Return the rule with which rows take the fewest layers, of those that lose at most ``max_drop`` points.

    ``alone`` is the main metric of the last head. Between equals the one that loses less is taken.
    """
    kept = [
        (worth.layers, -worth.metric, place)
        for place, worth in enumerate(values)
        if alone - worth.metric <= max_drop * POINT + ROUNDING
    ]
    return tried[min(kept)[2]]


def at(rule: ExitRule, threshold: float) -> ExitRule:
    """Return the rule with another threshold."""
    return replace(rule, threshold=threshold)


def in_batches(layers: Array, size: int) -> float:
    """Return how many layers a batch of ``size`` rows in their order takes on average: those of its last row."""
    return float(np.mean([layers[start : start + size].max() for start in range(0, len(layers), size)]))
