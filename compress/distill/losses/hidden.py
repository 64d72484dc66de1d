"""Hidden states of mapped layers (TinyBERT, arXiv:1909.10351)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, register
from compress.distill.losses.mean_over import MeanOver
from compress.distill.losses.tensors import total
from compress.models.quantities import HIDDEN
from compress.tensors import alike


def hidden_state_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error of hidden states (batch, tokens, hidden), mean over real positions and units.

    Mask (batch, tokens), nonzero on real tokens. One layer's L_hidn or L_embd of TinyBERT (arXiv:1909.10351).
    """
    real, (ours, theirs) = mask.bool(), alike(student, teacher)
    errors = (ours[real] - theirs[real]) ** 2
    return errors.sum() / max(errors.numel(), 1)


@register("hidden")
@dataclass(kw_only=True)
class HiddenStates(Loss):
    """Squared error of mapped layers' hidden states, summed over layers (TinyBERT, arXiv:1909.10351)."""

    mean_over = MeanOver.tokens
    quantities = (HIDDEN,)

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the sum of `hidden_state_loss` over the mapped layers."""
        mask = comparison.student.mask
        return total(hidden_state_loss(*comparison.of(HIDDEN, pair), mask) for pair in comparison.layers)
