"""[CLS] states of intermediate layers (BERT-PKD, arXiv:1908.09355)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, Pairs, register
from compress.distill.losses.mean_over import MeanOver
from compress.models.quantities import HIDDEN
from compress.tensors import alike


def patient_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of normalised [CLS] states (layers, batch, hidden), mean over all three.

    Each state is divided by its l2 norm: L_PT of BERT-PKD (Sun et al., arXiv:1908.09355, eq. 7).
    """
    ours, theirs = alike(student, teacher)
    return functional.mse_loss(functional.normalize(ours, dim=-1), functional.normalize(theirs, dim=-1))


@register("patient")
@dataclass(kw_only=True)
class Patient(Loss):
    """[CLS] states of mapped layers but the student's last, normalised (BERT-PKD, arXiv:1908.09355)."""

    mean_over = MeanOver.rows
    quantities = (HIDDEN,)

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Leave out the student's last layer, which the logits speak for."""
        return tuple(pair for pair in layers if pair[0] != last[0])

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `patient_loss`."""
        pairs = self.pairs(comparison.layers, comparison.last)
        student, teacher = comparison.student[HIDDEN], comparison.teacher[HIDDEN]
        ours = torch.stack([student[s][:, 0] for s, _ in pairs])
        return patient_loss(ours, torch.stack([teacher[t][:, 0] for _, t in pairs]))
