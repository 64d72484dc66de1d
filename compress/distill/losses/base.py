"""A loss: a named, weighed and scheduled term, and the batch that it is computed on.

Every loss is a file of this folder that holds its pure function and its settings and calls `register`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from compress.distill.losses.mean_over import MeanOver
from compress.distill.schedules import Schedule, schedule_faults, value_at
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.ensemble import EnsembleConfig
from compress.models.outputs import Outputs
from compress.models.quantities import MEMBERS, Quantity
from compress.settings import Settings, at_least, between
from compress.tasks.base import Task
from compress.tensors import alike

Pairs = tuple[tuple[int, int], ...]  # (student layer, teacher layer), counted from 1


@dataclass(frozen=True)
class Comparison:
    """One batch as a loss sees it.

    ``layers`` pairs mapped layers, ``last`` the last of both. The student's states are projected to the
    teacher's width where that differs.
    """

    student: Outputs
    teacher: Outputs
    labels: Tensor | None
    layers: Pairs
    progress: float  # share of training done, 0 to 1
    task: Task
    last: tuple[int, int] = (0, 0)
    kept: Mapping[tuple[Quantity, tuple[int, int]], list[int]] = field(default_factory=dict)  # see `Quantity.kept`

    @property
    def answers(self) -> tuple[Tensor, Tensor]:
        """The logits of both that are read: (batch, outputs), or (words, outputs) where tokens answer."""
        ours, theirs, read = self.student.logits, self.teacher.logits, self.student.answering
        return (ours, theirs) if read is None else (ours[read.bool()], theirs[read.bool()])

    def mean(self, distance: Callable[..., Tensor], *sides: Tensor) -> Tensor:
        """Return ``distance(*sides)``, a mean over the rows of tensors (batch, …).

        Where the teacher's answers do not count alike, each row's own distance is multiplied by its weight; the mean is
        over the rows that have an answer.
        """
        weights = self.teacher.weights
        if weights is None:
            return distance(*sides)
        rows = weights > 0
        if not rows.any():
            return sides[0].sum() * 0
        by_row = torch.vmap(lambda *row: distance(*(side[None] for side in row)))
        return (weights[rows] * by_row(*(side[rows] for side in sides))).mean()

    def margins(self, *, differing: bool) -> tuple[Tensor, Tensor]:
        """Return `Task.margins` of both models, each (pairs,); empty where nothing tells the groups of rows."""
        sides = alike(self.student.logits, self.teacher.logits)
        if self.labels is None:
            return sides[0].flatten()[:0], sides[1].flatten()[:0]
        ours, theirs = (self.task.margins(side, self.labels, differing=differing) for side in sides)
        return ours, theirs

    def of(self, quantity: Quantity, pair: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return a quantity of both models for a pair of layers: of the teacher's, the parts that the student kept."""
        student, teacher = self.student[quantity][pair[0]], self.teacher[quantity][pair[1]]
        kept = self.kept.get((quantity, pair))
        return student, teacher if kept is None else quantity.select(teacher, kept)


@dataclass(kw_only=True)
class Loss(Settings):
    """A named term of the distillation loss."""

    weight: float = 1.0  # its factor in the sum
    weight_end: float | None = None  # the factor at the end of training, with a schedule
    weight_schedule: Schedule = Schedule.constant  # constant, linear or step
    step_at: float = 0.5  # share of training after which a step schedule jumps

    quantities: ClassVar[tuple[Quantity, ...]] = ()
    """What it reads beside the logits, at the layers that `pairs` names."""
    mean_over: ClassVar[MeanOver | None] = None
    """What it is a mean over; None: of a batch as a whole, whose rows it compares, so that none can be divided."""
    part_by_part: ClassVar[bool] = True
    """Whether heads are compared each with the same one; else any number with any other."""
    softens: ClassVar[bool] = False
    """Whether it reads the teacher's answer at a temperature, for which an ensemble gives what each member says."""
    needs_classes: ClassVar[bool] = False
    compares_rows: ClassVar[bool] = False
    """Whether it compares rows of a group with each other, so that the task must be one that is `grouped`."""
    needs_vectors: ClassVar[bool] = False
    """Whether the logits must be vectors of texts."""
    needs_teacher: ClassVar[bool] = True

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Weights are finite and not negative, schedules complete, and ``layers`` of both models can be compared."""
        yield from at_least(self, "weight", 0)
        yield from at_least(self, "weight_end", 0)
        yield from between(self, "step_at", 0, 1)
        yield from schedule_faults("weight", self.weight_schedule, self.weight_end)
        if known.layers is not None and self.part_by_part:
            reasons = (fault for quantity in self.quantities for fault in quantity.faults(known))
            yield from islice(reasons, 1)  # quantities of one kind have the same

    @property
    def compares_layers(self) -> bool:
        """Whether it looks inside both models."""
        return bool(self.quantities)

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Return which layers this loss compares, of those that are mapped and the last of both."""
        return layers

    def notes(self, student: Any, teacher: Any, pairs: Pairs) -> Iterator[str]:
        """Yield what the report says of how it compares these layers of two configurations."""
        yield from ()

    def weight_at(self, progress: float) -> float:
        """Return the factor when a share ``progress`` of training is done."""
        return value_at(progress, self.weight_schedule, self.weight, self.weight_end, self.step_at)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the unweighted loss of one batch."""
        raise NotImplementedError(type(self).__name__)


LOSSES: dict[str, type[Loss]] = {}
"""The losses by the names that recipes use."""


LossClass = TypeVar("LossClass", bound=type[Loss])


def register(name: str) -> Callable[[LossClass], LossClass]:
    """Return a decorator that makes a loss choosable as ``distill.losses.<name>``.

    Raises ValueError where another loss has that name.
    """

    def named(loss: LossClass) -> LossClass:
        if LOSSES.setdefault(name, loss) is not loss:
            raise ValueError(f"There is a loss {name!r} already: {LOSSES[name].__name__}. Choose another name.")
        return loss

    return named


def wanted(
    losses: Iterable[Loss], layers: Pairs, last: tuple[int, int], teacher: Any
) -> dict[Quantity, tuple[int, ...]]:
    """Return which quantities the losses read, and of which layers of a teacher with this configuration."""
    read: dict[Quantity, set[int]] = {}
    mean = isinstance(teacher, EnsembleConfig) and teacher.averages_probabilities
    for loss in losses:
        if loss.softens and mean:
            read[MEMBERS] = {0}
        for quantity in loss.quantities:
            read.setdefault(quantity, set()).update(layer for _, layer in loss.pairs(layers, last))
    return {quantity: tuple(sorted(numbers)) for quantity, numbers in read.items()}
