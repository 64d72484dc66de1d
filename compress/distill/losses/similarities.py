"""How alike the texts of a batch are, as the teacher has it (Tung and Mori, arXiv:1907.09682)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, register
from compress.tensors import wide


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how differently two sides see which texts of a batch are alike; vectors (batch, width of a side).

    The squared error of the matrices of inner products, whose rows have length 1, mean over pairs of texts
    (similarity-preserving distillation, Tung and Mori, arXiv:1907.09682, eq. 1-4). Vectors are divided by their length
    first, so that cosines are compared. Widths may differ.
    """
    ours, theirs = (_products(wide(side)) for side in (student, teacher))
    return ((ours - theirs) ** 2).mean()


def _products(vectors: Tensor) -> Tensor:
    unit = functional.normalize(vectors, dim=-1)
    return functional.normalize(unit @ unit.T, dim=-1)


@register("similarities")
@dataclass(kw_only=True)
class Similarities(Loss):
    """Which texts of a batch are alike (Tung and Mori, arXiv:1907.09682); the student's width may be any."""

    needs_vectors = True

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `similarity_loss`."""
        return similarity_loss(*comparison.answers)
