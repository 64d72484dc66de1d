"""A loss: a named, weighed and scheduled term, and the batch that it is computed on.

Every loss is a file of this folder that holds its pure function and its settings and calls `register`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from compress.distill.schedules import Schedule, schedule_faults, value_at
from compress.errors import Fault
from compress.models.outputs import Outputs
from compress.settings import Settings, at_least, between
from compress.tasks.base import Task

Pairs = tuple[tuple[int, int], ...]  # (student layer, teacher layer), counted from 1


@dataclass(frozen=True)
class Comparison:
    """One batch as a loss sees it.

    ``layers`` pairs mapped layers, ``last`` the last of both. The student's states are projected to the
    teacher's width where that differs. ``heads`` says, by pair, which of the teacher's heads the student keeps.
    """

    student: Outputs
    teacher: Outputs
    labels: Tensor | None
    layers: Pairs
    progress: float  # share of training done, 0 to 1
    task: Task
    last: tuple[int, int] = (0, 0)
    teacher_heads: int = 1  # a layer, before any pruning
    heads: Mapping[tuple[int, int], list[int]] = field(default_factory=dict)

    def scores(self, student: int, teacher: int) -> tuple[Tensor, Tensor]:
        """Return attention scores (batch, heads, tokens, tokens) of both, of the heads that the student keeps."""
        kept = self.heads.get((student, teacher))
        known = self.teacher.scores[teacher]
        return self.student.scores[student], known if kept is None else known[:, kept]

    def probabilities(self, student: int, teacher: int) -> tuple[Tensor, Tensor]:
        """Return the softmax of `scores` over real keys."""
        ours, theirs = self.scores(student, teacher)
        hidden = ~self.student.mask.bool()[:, None, None, :]
        lowest = torch.finfo(ours.dtype).min
        return ours.masked_fill(hidden, lowest).softmax(-1), theirs.masked_fill(hidden, lowest).softmax(-1)


@dataclass(kw_only=True)
class Loss(Settings):
    """A named term of the distillation loss."""

    weight: float = 1.0  # its factor in the sum
    weight_end: float | None = None  # the factor at the end of training, with a schedule
    weight_schedule: Schedule = Schedule.constant  # constant, linear or step
    step_at: float = 0.5  # share of training after which a step schedule jumps

    needs_hidden: ClassVar[bool] = False
    needs_embeddings: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = False
    needs_relations: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True

    def faults(self) -> Iterator[Fault]:
        """Weights are finite and not negative, schedules complete."""
        yield from at_least(self, "weight", 0)
        yield from at_least(self, "weight_end", 0)
        yield from between(self, "step_at", 0, 1)
        yield from schedule_faults("weight", self.weight_schedule, self.weight_end)

    @property
    def compares_layers(self) -> bool:
        """Whether it looks inside both models."""
        return self.needs_hidden or self.needs_embeddings or self.needs_scores or self.needs_relations

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Return which layers this loss compares, of those that are mapped and the last of both."""
        return layers

    def weight_at(self, progress: float) -> float:
        """Return the factor when a share ``progress`` of training is done."""
        return value_at(progress, self.weight_schedule, self.weight, self.weight_end, self.step_at)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the unweighted loss of one batch."""
        raise NotImplementedError(type(self).__name__)


LOSSES: dict[str, type[Loss]] = {}
"""The losses by the names that recipes use."""


Kind = TypeVar("Kind", bound=type[Loss])


def register(name: str) -> Callable[[Kind], Kind]:
    """Return a decorator that makes a loss choosable as ``distill.losses.<name>``.

    Raises ValueError where another loss has that name.
    """

    def named(loss: Kind) -> Kind:
        if LOSSES.setdefault(name, loss) is not loss:
            raise ValueError(f"There is a loss {name!r} already: {LOSSES[name].__name__}. Choose another name.")
        return loss

    return named
