"""The temperature at which answers say how often they are right (Guo et al., arXiv:1706.04599)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from compress.tasks.base import Array, Task

LOWEST, HIGHEST = 0.05, 20.0


@dataclass(frozen=True, kw_only=True)
class FittedTemperature:
    """A temperature, and what it does to the loss on labels, in nats."""

    temperature: float
    before: float
    after: float
    rows: int


def calibrated(task: Task, logits: Array, labels: Array) -> FittedTemperature:
    """Return the temperature, between `LOWEST` and `HIGHEST`, that minimizes the mean loss of logits divided by it.

    Logits (rows, outputs), labels (rows, …), all of them known. Classes count alike, whatever they weigh in training.
    """
    from scipy.optimize import minimize_scalar

    given, known = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    plain = replace(task, weights=())

    def loss(logarithm: float) -> float:
        return float(plain.mean_loss(given / math.exp(logarithm), known))

    found = minimize_scalar(loss, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded")
    return FittedTemperature(temperature=math.exp(found.x), before=loss(0.0), after=float(found.fun), rows=len(labels))
