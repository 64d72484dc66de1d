"""What a recipe says of its task: which it is, the metric that decides, and what each class weighs in training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.settings import Settings, at_least, spelled

AUTO = "auto"
"""What a recipe writes to let the labels decide the task."""
BALANCED = "balanced"
"""What a recipe writes to give every class the same total weight."""


@dataclass(kw_only=True)
class TaskChoice(Settings):
    """The labels decide what is predicted, unless the recipe names a task."""

    kind: str = AUTO  # auto: by the labels; classification, regression, or another task's name
    metric: str | None = None  # the metric that decides, as macro_f1 or f1:LABEL; default: the task's first
    class_weights: Any = field(
        default=None, metadata={"open": True}
    )  # in the loss on labels: balanced, or a number for each class, as {spam: 5}; default: all classes equal

    stride: int | None = None  # spans: tokens that neighbouring windows of a long context share; default: a third
    pooling: str | None = None  # vectors: how tokens become one, mean, cls or max; default: as the model's folder says

    def __post_init__(self) -> None:
        """Turn the keys of ``class_weights`` into text as YAML writes them: 0 as "0", True as "true"."""
        if isinstance(self.class_weights, Mapping):
            self.class_weights = {spelled(name): weight for name, weight in self.class_weights.items()}

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Class weights are finite numbers above zero, and windows share a number of tokens."""
        yield from at_least(self, "stride", 0)
        given = self.class_weights
        if isinstance(given, Mapping):
            for name, weight in given.items():
                if not _is_weight(weight):
                    yield Fault(f"class_weights.{name}", weight, "must be a finite number above 0")
            if not given:
                yield Fault("class_weights", {}, "names no class", "Leave it out, or set it to balanced.")
        elif given not in (None, BALANCED):
            yield Fault("class_weights", given, f"must be {BALANCED} or numbers by class, as {{spam: 5}}")

    @classmethod
    def of(cls, task: str | TaskChoice) -> TaskChoice:
        """Return the choice that a task's name alone stands for; a choice as it is."""
        return cls(kind=task) if isinstance(task, str) else task

    @property
    def weight_of(self) -> Mapping[str, float]:
        """The weights that are given by class; empty where none are."""
        given = self.class_weights
        return {name: float(weight) for name, weight in given.items()} if isinstance(given, Mapping) else {}


def _is_weight(value: object) -> bool:
    try:
        weight = float(str(value))
    except ValueError:
        return False
    return math.isfinite(weight) and weight > 0
