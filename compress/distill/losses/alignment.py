"""Vectors of texts brought to the teacher's (LEAF, arXiv:2509.12539)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver
from compress.tensors import alike


class Measure(Enum):
    """squared: of the distance between both vectors; cosine: 1 minus that of the angle between them."""

    squared = "squared"
    cosine = "cosine"


def alignment_loss(student: Tensor, teacher: Tensor, measure: Measure = Measure.squared) -> Tensor:
    """Return how far vectors (batch, width) lie from the teacher's, mean over texts.

    The squared Euclidean distance, as LEAF aligns a student with its teacher (arXiv:2509.12539), or 1 - cosine. Of
    vectors of length 1 the first is twice the second.
    """
    ours, theirs = alike(student, teacher)
    if measure is Measure.cosine:
        return (1 - functional.cosine_similarity(ours, theirs, dim=-1)).mean()
    return ((ours - theirs) ** 2).sum(-1).mean()


@register("alignment")
@dataclass(kw_only=True)
class Alignment(Loss):
    """The distance of each text's vector from the teacher's (LEAF, arXiv:2509.12539)."""

    measure: Measure = Measure.squared  # squared distance, or cosine

    mean_over = MeanOver.answers
    needs_vectors = True

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `alignment_loss`."""
        return alignment_loss(*comparison.answers, self.measure)
