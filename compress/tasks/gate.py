"""May an artifact replace the model that it was made from? A bound on what it loses, and what few rows can say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compress.tasks.paired import LEVEL, ONE_SIDED, Difference

POINT = 0.01  # of a metric

Outcome = Literal["holds", "too few rows", "exceeds"]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What validation rows say of an artifact's loss, in points of the main metric."""

    outcome: Outcome
    metric: str
    rows: int
    max_drop: float
    drop: float = 0.0  # that was seen; negative where the artifact is better
    bound: float = 0.0  # above it lies the true drop with a probability of 5 % at most
    needed: int = 0  # rows that could tell, about; 0 where these can
    reason: str = ""  # what else is wrong, as a clause

    @property
    def passed(self) -> bool:
        """Whether the artifact may be kept."""
        return self.outcome != "exceeds"


def judged(difference: Difference, rows: int, max_drop: float) -> Gate:
    """Return whether an artifact loses at most ``max_drop`` points, by its paired ``difference`` from its origin.

    It holds where the one-sided 95 % bound of the drop is not above ``max_drop``, so that an artifact that loses more
    passes once in twenty times at most. It exceeds where the bound is above, and the rows could have shown otherwise:
    an artifact that changes as many answers and loses nothing would have passed nineteen times of twenty. With fewer
    rows neither luck nor noise decides: there are too few to tell, unless they show a loss all the same (p < 0.05,
    one-sided).

    >>> from compress.tasks.paired import Difference
    >>> few = Difference(metric="accuracy", value=0.0, low=-0.07, high=0.07, p=1.0, floor=-0.06)
    >>> judged(few, 40, 1.0).outcome
    'too few rows'
    """
    allowed = max_drop * POINT
    margin = difference.value - difference.least
    flawless = rows_of(allowed)
    lost = difference.value < 0 and difference.p < 2 * LEVEL
    needed = 0
    outcome: Outcome = "exceeds"
    if -difference.least <= allowed + 1e-12 and rows >= flawless:
        outcome = "holds"
    elif not lost and (rows < flawless or 2 * margin > allowed):
        outcome = "too few rows"
        needed = max(flawless, math.ceil(rows * min(1e6, 2 * margin / allowed) ** 2)) if allowed > 0 else 0
    return Gate(
        outcome=outcome, metric=difference.metric, rows=rows, max_drop=max_drop, drop=-difference.value / POINT,
        bound=-difference.least / POINT, needed=needed,
    )  # fmt: skip


def beside(judgement: Gate, guards: Sequence[Difference], rows: int, max_drop: float) -> Gate:
    """Return what is judged of an artifact whose main metric was, with regard to what must not fall beside it.

    A guard, such as the recall of one label, speaks only where the rows show that it falls by more than ``max_drop``
    points: its bound is above, and p < 0.05, one-sided and after Bonferroni for the number of guards, so that an
    artifact that loses nothing is not rejected because there are many. The one that falls most is given.
    """
    if judgement.outcome == "exceeds":
        return judgement
    fallen = [
        judged(guard, rows, max_drop)
        for guard in guards
        if guard.value < -max_drop * POINT and guard.p * len(guards) < 2 * LEVEL
    ]
    return max(fallen, key=lambda gate: gate.drop, default=judgement)


def rows_of(allowed: float) -> int:
    """Return the fewest rows on which no changed answer shows that a share of at most ``allowed`` is lost.

    That is where the score bound of no loss among them, z²/(rows + z²), comes down to it; without an allowance no
    number of rows does, and a very large one is returned.
    """
    square = ONE_SIDED**2
    return math.ceil(square * (1 - allowed) / allowed - 1e-9) if allowed > 0 else 2**62
