"""The teacher's softened probabilities (Hinton et al., arXiv:1503.02531)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver
from compress.distill.schedules import Schedule, schedule_faults, value_at
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.quantities import MEMBERS
from compress.settings import positive


@register("soft")
@dataclass(kw_only=True)
class SoftTargets(Loss):
    """The teacher's softened probabilities (Hinton et al., arXiv:1503.02531)."""

    temperature: float = 2.0  # T, dividing both sides' logits
    temperature_end: float | None = None  # T at the end of training, with a schedule
    temperature_schedule: Schedule = Schedule.constant  # constant, linear or step

    mean_over = MeanOver.soft_answers
    softens = True
    needs_classes = True

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Temperatures are above zero."""
        yield from super().faults(known)
        yield from positive(self, "temperature")
        yield from positive(self, "temperature_end")
        yield from schedule_faults("temperature", self.temperature_schedule, self.temperature_end)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the distance of the student's answers from the teacher's at the scheduled temperature."""
        temperature = value_at(
            comparison.progress, self.temperature_schedule, self.temperature, self.temperature_end, self.step_at
        )
        ours, theirs = comparison.student, comparison.teacher
        read = ours.mask if ours.answering is None else ours.answering
        members = theirs.values.get(MEMBERS)
        logits = theirs.logits if members is None else comparison.task.softened(members[0], temperature)

        def distance(ours: Tensor, theirs: Tensor, read: Tensor) -> Tensor:
            return comparison.task.distance(ours, theirs, read, temperature)

        return comparison.mean(distance, ours.logits, logits, read)
