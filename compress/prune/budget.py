"""Pruning to a budget: the uneven shape that keeps most within a latency, a size or a number of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from compress.errors import Fault
from compress.families.forms.uneven import is_low_rank
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_config, load_model, load_tokenizer
from compress.pipeline.model import Model
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.prune.costs import Costs, Shape, counted, drawn, shape_of, told
from compress.prune.criteria import importance_of
from compress.prune.parts import HEADS, UNITS
from compress.prune.search import best_shape
from compress.prune.sensitivity import Lost, PartOrder, Sensitivity, ranking_of
from compress.prune.speeds import latency_costs
from compress.prune.within_budget import PARAMETER_MIB, WithinBudget, size_aside
from compress.settings import at_least


@dataclass(kw_only=True)
class Budget(WithinBudget):
    """Choose heads and width of every layer, or leave it out, so that most is kept within one budget (ZipLM)."""

    widths: int = 16  # feed-forward widths that a layer can have, evenly spaced

    name: ClassVar[str] = "budget"
    chooses: ClassVar[str] = "heads and widths"

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check the number of widths, and what every budget needs."""
        yield from super().faults(known)
        yield from at_least(self, "widths", 2)

    def unfit(self, student: Any) -> Iterator[Fault]:
        """Parts of low-rank matrices cannot be removed."""
        yield from super().unfit(student)
        if is_low_rank(student):
            rule = "cannot choose heads and widths of a student with low-rank matrices"
            yield Fault(self.goal, self.wanted, rule, "Leave budget out of prune.")

    def table(self, state: State, student: Model) -> tuple[Costs, float, str, list[Product]]:
        """Return the table, what the student costs by it, what it was measured on, and the products that it took."""
        costs, condition, products = self._table(state, student)
        return costs, costs.of(shape_of(load_config(student.folder))), condition, products

    def _table(self, state: State, student: Model) -> tuple[Costs, str, list[Product]]:
        if self.timed:
            costs, tokens, product = latency_costs(state, student, self.threads, self.widths, self.tokens)
            return costs, self.timing_condition(tokens), [product]
        model = load_model(student.folder)
        if self.goal == "parameters":
            return counted(model, self.widths, "parameters", 1), "counted", []
        return counted(model, self.widths, "MiB", PARAMETER_MIB, size_aside(student)), "file of weights, fp32", []

    def told(self, costs: Any, student: Model) -> str:
        """Return the table in a sentence."""
        return told(costs)

    def smallest(self, costs: Any) -> str:
        """Return in words what costs least."""
        return f"one layer of one head and {costs.neurons[0][0]:,} units"

    def drawn(self, record: Mapping[str, Any], student: Model) -> str:
        """Return the shape that was chosen."""
        return f"heads × units: {drawn(record['shape'])}"

    def cut(self, state: State, student: Model, costs: Any, target: float, products: list[Product]) -> Product:
        """Return the student in the shape that loses least within ``target``; ``products`` gains what that took."""
        measured = self.measured(state, student, costs)
        products.append(measured)

        def cut(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            shape, distance_left = self.fitted(state, model, tokenizer, costs, measured, target)
            record = {"shape": shape, "predicted": costs.of(shape), "distance": distance_left}
            return Rewritten(PartOrder(**measured.record["order"]).cut(model, shape), tokenizer, record)

        made_with = [target, asdict(costs), [self.rows, self.tries, *self._drawn_from(state)]]
        products.append(rewrite(state.workshop, Kind("budget", revision=1), student, made_with, cut, on=device()))
        return products[-1]

    def measured(self, state: State, student: Model, costs: Costs) -> Product:
        """Return the order of the student's heads and units, and what every size of each of its layers loses.

        They are the same for every target, so a sweep over budgets measures once.
        """

        def measure(_: Path) -> dict[str, Any]:
            model, batches = (
                load_model(student.folder, on=device()),
                self._sampled(state, load_tokenizer(student.folder)),
            )
            heads = importance_of(model, HEADS, batches, "gradient")
            order = ranking_of(heads, importance_of(model, UNITS, batches, "fisher"))
            options = [costs.sizes(*size) for size in shape_of(model.config)]
            lost = Sensitivity(model, batches, order).by_layer(options)
            return {"order": asdict(order), "lost": [losses.told() for losses in lost]}

        widths = [width for width, _ in costs.neurons]
        made_with = [student.key, widths, self.rows, *self._drawn_from(state)]
        return state.workshop.make(Kind("sensitivity", revision=1), made_with, measure)

    def fitted(
        self, state: State, model: PreTrainedModel, tokenizer: Any, costs: Costs, measured: Product, target: float
    ) -> tuple[Shape, float]:
        """Return the shape that loses least of all that cost no more than ``target``, and its distance.

        ``measured`` is what `measured` gives of the model. The smallest shape must be within the target.
        """
        order = PartOrder(**measured.record["order"])
        lost = [Lost.of(losses) for losses in measured.record["lost"]]
        distance = Sensitivity(model, self._sampled(state, tokenizer), order).distance
        found = best_shape(costs, shape_of(model.config), lost, target, distance, self.tries, state.seed)
        assert found is not None
        return found

    def _sampled(self, state: State, tokenizer: Any) -> list[dict[str, Tensor]]:
        tokens = self.sample(state, tokenizer)
        return [tokens.batch(part) for part in tokens.batches(32)]

    def _drawn_from(self, state: State) -> list[Any]:
        return [state.data.train.fingerprint, state.seed]
