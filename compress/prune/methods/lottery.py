"""Lottery tickets: the smallest trained weights leave in rounds, the others go back to where they began.

Frankle & Carbin, arXiv:1803.03635; for BERT Chen et al., arXiv:2007.12223.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.prune.methods.base import Method, Sparsity, at_once, register
from compress.settings import at_least


@dataclass(kw_only=True)
class LotterySettings(Sparsity):
    """How many rounds, too."""

    rounds: int = 3  # rounds of lottery, each removing the same share of what is left

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges, too."""
        yield from super().faults(known)
        yield from at_least(self, "rounds", 1)


@register("lottery")
class LotteryTickets(Method[LotterySettings]):
    """Iterative magnitude pruning with rewinding to the weights from before distillation."""

    settings = LotterySettings
    from_before_distillation = True

    def trainings(self, stage: LotterySettings) -> int:
        """One for each round."""
        return stage.rounds

    def __call__(self, stage: LotterySettings, state: State) -> list[Product]:
        """Return a ticket and what it was trained to, for each round; the last is the student."""
        start, student = state.undistilled, state.given_student
        if start is None:
            raise ValueError("a lottery ticket goes back to weights from before distillation; run Distill first")
        products: list[Product] = []
        for turn in range(1, stage.rounds + 1):
            sparsity = 1 - (1 - stage.sparsity) ** (turn / stage.rounds)
            ticket = at_once(stage, state, student, start, sparsity)
            recovered = state.given_recovery.train(
                state, Model.of(ticket), stage.recovery_epochs, name="weights_lottery", comparable=False
            )
            products += [ticket, recovered]
            student = Model.of(recovered)
        return products
