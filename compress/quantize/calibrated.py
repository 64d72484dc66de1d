"""Settings of the stages whose ranges of activations are measured on training rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.data.dataset import Split
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.quantize.calibration import RangeRule
from compress.quantize.ranges import Calibration
from compress.settings import at_least, between

PERCENTILE, DECAY = 99.99, 0.9
CLIPPED = 4.0  # squared error over that of mse's range, from which an activation counts as clipped


@dataclass(kw_only=True)
class Calibrated(Stage):
    """A stage that runs the student on training rows to see which values its activations have."""

    rows: int = 256  # training rows that ranges are measured on
    calibration: Calibration = Calibration.minmax  # minmax, moving_average, percentile, entropy (clips GELU) or mse
    percentile: float = PERCENTILE  # percentile: share of an activation's values inside its range, in %
    decay: float = DECAY  # moving_average: share of a range that a batch leaves as it was

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """All are in their natural ranges, and belong to the calibration."""
        yield from at_least(self, "rows", 1)
        yield from between(self, "percentile", 50, 100)
        yield from between(self, "decay", 0, 1, open_high=True)
        for name, usual in (("percentile", PERCENTILE), ("decay", DECAY)):
            of = Calibration.percentile if name == "percentile" else Calibration.moving_average
            if getattr(self, name) != usual and self.calibration is not of:
                rule = f"has no effect on calibration={self.calibration.value}"
                yield Fault(name, getattr(self, name), rule, f"Leave it out, or set calibration={of.value}.")

    def sample(self, state: State) -> Split:
        """Return the training rows that ranges are measured on."""
        return drawn(state, self.rows)

    def rule(self, *, symmetric: bool) -> RangeRule:
        """Return how ranges are chosen."""
        return RangeRule(how=self.calibration, percentile=self.percentile, decay=self.decay, symmetric=symmetric)

    def measured_with(self, state: State) -> list[Any]:
        """Return what ranges depend on, except for the graph."""
        return [
            self.calibration.value, self.percentile, self.decay, self.sample(state).fingerprint, state.seed,
        ]  # fmt: skip

    def told(self) -> str:
        """Return how ranges were found, in words."""
        detail = {Calibration.percentile: f" {self.percentile:g}", Calibration.moving_average: f" {self.decay:g}"}
        return f"ranges by {self.calibration.value}{detail.get(self.calibration, '')} on {self.rows:,} training rows"


def clipped(excess: Mapping[str, float], parts: Mapping[str, str]) -> list[str]:
    """Return a warning where ranges by entropy leave out much of activations, which are in ``parts`` of the model."""
    most = max(excess, key=lambda name: excess[name], default=None)
    if most is None or excess[most] < CLIPPED:
        return []
    count = sum(value >= CLIPPED for value in excess.values())
    return [
        f"entropy clips {count} of {len(excess)} activations: their squared error is over {CLIPPED:g} times that of "
        f"calibration=mse, and {excess[most]:,.0f} times in {parts.get(most, most)}. Use mse."
    ]


def drawn(state: State, rows: int) -> Split:
    """Return ``rows`` training rows, drawn with the state's seed; all where there are fewer."""
    return state.data.train.take(np.random.default_rng(state.seed).permutation(len(state.data.train))[:rows])
