"""The teacher's probability that one candidate is better than another (RankNet, Burges et al., ICML 2005)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.settings import positive
from compress.tasks.functions import label_soft_target_loss


def pairwise_soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) in nats of which row of a pair is better, mean over pairs.

    Margins (pairs,) are scores of rows less those of others; a sigmoid of the margin over the temperature is the
    probability that the first is better, as in RankNet, with the teacher's in place of the label's. Times temperature²,
    keeping gradient size.
    """
    return label_soft_target_loss(student[:, None], teacher[:, None], temperature)


@register("pairwise")
@dataclass(kw_only=True)
class PairwiseSoftTargets(Loss):
    """Which of two candidates is better, softened (RankNet's probabilities, Burges et al., ICML 2005).

    All pairs of rows of a group count.
    """

    temperature: float = 1.0  # T, dividing both sides' margins

    mean_over = MeanOver.margins
    compares_rows = True

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The temperature is above zero."""
        yield from super().faults(known)
        yield from positive(self, "temperature")

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `pairwise_soft_target_loss`; 0 where the batch has no two rows of a group."""
        ours, theirs = comparison.margins(differing=False)
        if not len(ours):
            return comparison.student.logits.sum() * 0
        return pairwise_soft_target_loss(ours, theirs, self.temperature)
