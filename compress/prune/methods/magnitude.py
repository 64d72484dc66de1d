"""The smallest weights leave on a schedule (Compressing BERT, arXiv:2002.08307; Zhu & Gupta, arXiv:1710.01878)."""

from __future__ import annotations

from compress.distill.sparsify import AbsoluteValues
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.prune.methods.base import Method, at_once, register
from compress.prune.methods.while_training import Scheduled, trained


@register("magnitude")
class MagnitudePruning(Method[Scheduled]):
    """By absolute value, in training; without ``recovery_epochs`` all at once."""

    settings = Scheduled
    trains = False

    def __call__(self, stage: Scheduled, state: State) -> list[Product]:
        """Return the student."""
        if stage.recovery_epochs > 0 and state.recovery is not None:
            return [trained(stage, state, AbsoluteValues())]
        return [at_once(stage, state, state.given_student, state.given_student, stage.sparsity)]
