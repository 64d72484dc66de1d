"""Students in uneven shapes: heads and units by layer, as the budget's solver chooses them for a latency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compress.known import Known
from compress.models.device import device
from compress.models.loading import load_model, load_tokenizer
from compress.pipeline.state import State
from compress.prune.budget import Budget
from compress.prune.costs import Shape, shape_of
from compress.prune.latency_table import CALLS
from compress.prune.speeds import latency_costs
from compress.search.candidates import Candidate, of_shape
from compress.settings import all_faults
from compress.student.bert import ALL, Bert

WIDTHS = 6  # feed-forward widths of the table
TRIES = 10  # shapes that are measured around the solver's first
ROWS = 128  # labelled training rows on which they are
SHARES = (0.67, 0.5, 0.33)  # of the teacher's latency, where no latency is asked for
BELOW = (0.95, 0.7)  # shares of the latency that is asked for


@dataclass(frozen=True)
class Shapes:
    """Where shapes come from: the teacher, and the threads that it runs on."""

    taught: State
    threads: int

    def for_shares(self, shares: Sequence[float]) -> Iterator[tuple[float, Candidate]]:
        """Yield (share, the shape that loses least within this share of the teacher's latency); none for one too low.

        By the table of `latency_costs`, which is of fp32: int8 is taken to gain the same for all shapes, until they are
        measured.
        """
        state, budget = Bert(layers=ALL)(self.taught), self._budget(1.0)
        student = state.given_student
        costs, _, _ = latency_costs(state, student, self.threads, WIDTHS, None)
        measured = budget.measured(state, student, costs)
        model, tokenizer = load_model(student.folder, on=device()), load_tokenizer(student.folder)
        most = costs.of(shape_of(model.config))
        for share in shares:
            if costs.least() <= share * most:
                shape, _ = budget.fitted(state, model, tokenizer, costs, measured, share * most)
                yield share, of_shape([heads for heads, _ in shape], [units for _, units in shape])

    def misfit(self, known: Known) -> str:
        """Return why this teacher has no such shapes, as a sentence; "" where it has."""
        return next((str(fault) for fault in all_faults(self._budget(1.0), known)), "")

    def _budget(self, milliseconds: float) -> Budget:
        return Budget(
            latency_ms=milliseconds, threads=self.threads, widths=WIDTHS, tries=TRIES, rows=ROWS, recovery_epochs=0
        )


def seconds(shape: Shape, ms: float) -> float:
    """Return what finding shapes of a teacher takes, which is in this shape and takes ``ms`` in fp32."""
    sizes = max(heads for heads, _ in shape) + WIDTHS
    table = 2 * CALLS * (sizes + 2) * ms / 1000
    sensitivity = ROWS * sizes * len(shape) / 2 * ms / 1000
    return table + sensitivity + TRIES * len(BELOW) * ROWS * ms / 1000


def wanted_shares(limit: float, fastest: float) -> list[float]:
    """Return the shares of the teacher's latency that shapes are sought for; ``fastest``: in its fastest form."""
    shares = SHARES if limit == float("inf") else [below * limit / fastest for below in BELOW]
    return [share for share in shares if share < max(BELOW)]
