"""Whether training helped: validation before and after it, on the same rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

from compress.pipeline.answers import OfModel
from compress.pipeline.model import Model
from compress.pipeline.record import Details
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.tasks.base import Array, Task
from compress.tasks.paired import Difference


@dataclass(frozen=True)
class Validated(Details):
    """What a model had on validation rows before and after a training, and which weights went on."""

    validation: dict[str, Any]  # metric, before, after, rows, difference (value, low, high, p), kept: trained or start

    @classmethod
    def of(cls, task: Task, before: Array, after: Array, labels: Array, keep_best: bool) -> Self:
        """Compare logits (rows, …) on labelled rows; ``keep_best`` lets the start go on where it is better."""
        difference = task.difference(after, before, labels)
        metric = difference.metric
        found = {"before": task.metrics(before, labels)[metric], "after": task.metrics(after, labels)[metric]}
        kept = "start" if keep_best and difference.value < 0 else "trained"
        return cls({"rows": len(labels), **found, "difference": asdict(difference), "kept": kept})

    @classmethod
    def recorded(cls, product: Product) -> Self | None:
        """Return what a training recorded; None where it had nothing to compare."""
        return cls(product.record["validation"]) if "validation" in product.record else None

    @property
    def start_goes_on(self) -> bool:
        """Whether the weights from before training are kept."""
        return bool(self.validation["kept"] == "start")

    @property
    def notes(self) -> list[str]:
        """What the report says: nothing where the metric did not fall."""
        record = self.validation
        difference = Difference(**record["difference"])
        if difference.value >= 0:
            return []
        what = (
            f"training lowered {difference.metric} on {record['rows']:,} validation rows from {record['before']:.4f} "
            f"to {record['after']:.4f} (95 % interval of the difference {difference.low:+.4f} to "
            f"{difference.high:+.4f}, p = {difference.p:.2g}{'' if difference.clear else ', which may be chance'})"
        )
        return [what + ("; the weights from before it go on" if self.start_goes_on else "")]


def fallen(products: Iterable[Product]) -> list[str]:
    """Return what is to be reported of trainings that lowered the metric."""
    return [note for product in products if (found := Validated.recorded(product)) for note in found.notes]


def head_note(state: State, before: Model, after: Model) -> str:
    """Return what a student answers whose head no loss of a stage has read, and answered ``before`` it."""
    note, rows = "no loss of this stage reads the head, which is as it was", state.data.validation
    if not len(rows) or rows.labels is None:
        return note
    metric = state.data.task.main_metric
    now, then = (
        state.data.task.metrics(OfModel(model).logits(rows, state.workshop), rows.known_labels)[metric]
        for model in (after, before)
    )
    return f"{note}: validation {metric} {now:.4f}, {then:.4f} before"
