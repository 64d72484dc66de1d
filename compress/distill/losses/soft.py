"""The teacher's softened probabilities (Hinton et al., arXiv:1503.02531)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.tensors import alike
from compress.distill.schedules import Schedule, schedule_faults, value_at
from compress.errors import Fault
from compress.settings import positive


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) in nats, batch mean. Logits: (batch, classes).

    Times temperature², keeping gradient size (Hinton et al., arXiv:1503.02531).
    """
    log_q, log_p = (functional.log_softmax(x / temperature, dim=-1) for x in alike(student, teacher))
    return temperature**2 * functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def token_soft_target_loss(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """`soft_target_loss` of each real token's own logits (batch, tokens, tags), mean over real tokens.

    For tagging (Tsai et al., multilingual MiniBERT, arXiv:1909.00100). Mask (batch, tokens), nonzero on real tokens.
    """
    real, (ours, theirs) = mask.bool(), alike(student, teacher)
    if not real.any():
        return 0 * ours[real].sum()
    return soft_target_loss(ours[real], theirs[real], temperature)


@register("soft")
@dataclass(kw_only=True)
class SoftTargets(Loss):
    """The teacher's softened probabilities (Hinton et al., arXiv:1503.02531)."""

    temperature: float = 2.0  # T, dividing both sides' logits
    temperature_end: float | None = None  # T at the end of training, with a schedule
    temperature_schedule: Schedule = Schedule.constant  # constant, linear or step

    needs_classes = True

    def faults(self) -> Iterator[Fault]:
        """Temperatures are above zero."""
        yield from super().faults()
        yield from positive(self, "temperature")
        yield from positive(self, "temperature_end")
        yield from schedule_faults("temperature", self.temperature_schedule, self.temperature_end)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `soft_target_loss` at the scheduled temperature."""
        temperature = value_at(
            comparison.progress, self.temperature_schedule, self.temperature, self.temperature_end, self.step_at
        )
        return soft_target_loss(comparison.student.logits, comparison.teacher.logits, temperature)
