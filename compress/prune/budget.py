"""Pruning to a budget: the uneven shape that keeps most within a latency, a size or a number of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from math import ceil, floor
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from compress.distill.keep_best import fallen
from compress.errors import Fault, RecipeError
from compress.families.registry import FAMILIES, can_be_taken_apart, family_of
from compress.files import MIB, size_mib
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_config, load_model, load_tokenizer
from compress.models.outputs import parameters
from compress.models.positions import longest_row
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.record import Details
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.prune.costs import Costs, Shape, amount, counted, drawn, shape_of, told
from compress.prune.criteria import importance_of
from compress.prune.gradual import Gradual
from compress.prune.parts import HEADS, UNITS
from compress.prune.search import best_shape
from compress.prune.sensitivity import Lost, PartOrder, Sensitivity, ranking_of
from compress.prune.speeds import latency_costs, side_by_side
from compress.settings import at_least, between, positive
from compress.telling import say

GOALS = ("speedup", "latency_ms", "size_mib", "parameters")
PARAMETER_MIB = 4 / MIB  # in fp32
WEIGHTS = (".safetensors",)


@dataclass(frozen=True, kw_only=True)
class Spent(Details):
    """A budget, what was predicted for the shape that was chosen, and what was measured of it."""

    budget: Mapping[str, float]  # its one entry: speedup, latency_ms, size_mib or parameters
    predicted: Mapping[str, float]  # by the same names
    measured: Mapping[str, float]  # by the same names, and latency_ms_before
    costs: Costs
    condition: str  # under which the costs were measured

    def report(self) -> dict[str, Any]:
        """Return it with a key of its own for each figure, as predicted_speedup."""
        figures = {"predicted": self.predicted, "measured": self.measured}
        return {f"{how}_{name}": value for how, values in figures.items() for name, value in values.items()} | {
            "budget": dict(self.budget),
            "costs": asdict(self.costs),
            "condition": self.condition,
        }

    def __str__(self) -> str:
        if "speedup" in self.predicted:
            return (
                f"speedup over the student before pruning: {self.predicted['speedup']:.2f}× predicted, "
                f"{self.measured['speedup']:.2f}× measured (ONNX Runtime fp32, batch 1, called alternately: "
                f"{self.measured['latency_ms_before']:.3g} ms and {self.measured['latency_ms']:.3g} ms)"
            )
        figures = (("predicted", self.predicted), ("measured", self.measured))
        return "; ".join(
            f"{how} {name.replace('_', ' ')} {value:,.6g}" for how, values in figures for name, value in values.items()
        )


@dataclass(kw_only=True)
class Budget(Gradual):
    """Choose heads and width of every layer, or leave it out, so that most is kept within one budget (ZipLM)."""

    speedup: float | None = (
        None  # times as fast as the student before pruning: ONNX Runtime fp32, batch 1, real lengths
    )
    latency_ms: float | None = None  # median of a row in ONNX Runtime fp32, batch 1, real lengths
    size_mib: float | None = None  # of the student's file of weights, fp32
    parameters: int | None = None  # the student's in total, embeddings too
    threads: int = 1  # ONNX Runtime's threads, for speedup and latency_ms
    tokens: int | None = None  # row length for these two; default: the training rows' median, then their real lengths
    widths: int = 16  # feed-forward widths that a layer can have, evenly spaced
    tries: int = 100  # shapes measured around the solver's first, to find a better one; 0: keep the first
    rows: int = 256  # labelled training rows on which importance and losses are measured

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """There is one budget, it can be one, and the student is of a family that can be taken apart."""
        yield from super().faults(known)
        given = [name for name in GOALS if getattr(self, name) is not None]
        if len(given) != 1:
            rule = "exactly one of speedup, latency_ms, size_mib and parameters must be given"
            remedy = "For example prune.budget.speedup=2." if not given else "Leave out all but one."
            yield Fault(given[1] if given else "speedup", getattr(self, given[1]) if given else None, rule, remedy)
        yield from between(self, "speedup", 1, float("inf"), open_low=True)
        for name in GOALS[1:]:
            yield from positive(self, name)
        yield from at_least(self, "threads", 1)
        yield from at_least(self, "tokens", 2)
        yield from at_least(self, "widths", 2)
        yield from at_least(self, "tries", 0)
        if self._timed and find_spec("onnxruntime") is None:
            yield Fault(given[0], self._wanted, "is measured in onnxruntime", "pip install 'compress-encoders[onnx]'.")
        if known.student is not None:
            yield from self._unfit(known.student)

    def _unfit(self, student: Any) -> Iterator[Fault]:
        if not can_be_taken_apart(student):
            rule = f"cannot choose heads and widths of a student of type {student.model_type}"
            remedy = f"Supported: {', '.join(FAMILIES)}. Leave budget out of prune."
            yield Fault(self._name, self._wanted, rule, remedy)
        elif self._timed and not family_of(student).graph_can_be_resized:
            rule = f"cannot time other sizes of a student of type {student.model_type}"
            yield Fault(self._name, self._wanted, rule, "Give size_mib or parameters instead.")
        longest = longest_row(student)
        if self.tokens is not None and self.tokens > longest:
            yield Fault("tokens", self.tokens, f"must not exceed the {longest} tokens that the student takes")

    @property
    def _name(self) -> str:
        return next((name for name in GOALS if getattr(self, name) is not None), GOALS[0])

    @property
    def _wanted(self) -> float:
        return float(getattr(self, self._name) or 0)

    @property
    def _timed(self) -> bool:
        return self._name in ("speedup", "latency_ms")

    def plan(self, plan: Plan) -> Plan:
        """A recovery after each round, until the budget is met."""
        return super().plan(plan).bounded(plan)

    def __call__(self, state: State) -> State:
        """Return the state with the student in the shape that was chosen; raises RecipeError where none fits."""
        before = student = state.given_student
        costs, condition, products = self._costs(state, student)
        whole = costs.of(shape_of(load_config(student.folder)))
        goal = whole / self._wanted if self._name == "speedup" else self._wanted
        self._refuse(costs, goal, whole)
        notes = [f"{condition}: {amount(whole, costs.unit)} before", told(costs)]
        _say(state, notes)
        now, curves = whole, list[Any]()
        for turn in range(1, self.rounds + 1):
            if now <= goal:
                break
            target = goal + (1 - self.done(turn)) * (whole - goal)
            cut = self._cut(state, student, costs, target, products)
            student, now = Model.of(cut), cut.record["predicted"]
            chosen = f"round {turn} of {self.rounds}, heads × units: {drawn(cut.record['shape'])}"
            notes.append(f"{chosen}; predicted {amount(now, costs.unit)}")
            _say(state, notes[-1:])
            if (recovered := self.recovered(state, student)) is not None:
                products.append(recovered)
                student, curves = Model.of(recovered), curves + list(recovered.record["curves"])
        predicted, measured = self._outcome(state, before, student, whole, now, products)
        spent = Spent(
            budget={self._name: self._wanted}, predicted=predicted, measured=measured, costs=costs, condition=condition
        )
        notes += [str(spent), *fallen(products)]
        record = self.record("budget", products, model=student, notes=notes, curves=curves, details=spent)
        return state.with_student(record, student)

    def _costs(self, state: State, student: Model) -> tuple[Costs, str, list[Product]]:
        """Return the table, what it was measured on, and the products that it took."""
        if self._timed:
            costs, tokens, product = latency_costs(state, student, self.threads, self.widths, self.tokens)
            threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
            return costs, f"ONNX Runtime fp32, {threads}, batch 1, {tokens} tokens", [product]
        model = load_model(student.folder)
        if self._name == "parameters":
            return counted(model, self.widths, "parameters", 1), "counted", []
        aside = size_mib(student.folder, WEIGHTS) - PARAMETER_MIB * parameters(model)  # the headers of the files
        return counted(model, self.widths, "MiB", PARAMETER_MIB, aside), "file of weights, fp32", []

    def _refuse(self, costs: Costs, goal: float, whole: float) -> None:
        """Raise RecipeError where even the smallest shape costs more than ``goal``."""
        least = costs.least()
        if least <= goal:
            return
        fast = self._name == "speedup"
        # rounded to the side that can be had
        enough = f"{ceil(least):,}" if costs.unit == "parameters" else f"{ceil(1000 * least) / 1000:,.3f}"
        best = f"at most {floor(100 * whole / least) / 100:g}" if fast else f"at least {enough} {costs.unit}"
        rule = f"is out of reach: one layer of one head and {costs.neurons[0][0]:,} units has {best}"
        remedy = f"Choose a {'lower' if fast else 'higher'} {self._name}."
        raise RecipeError([Fault(f"prune.budget.{self._name}", self._wanted, rule, remedy)])

    def _cut(self, state: State, student: Model, costs: Costs, target: float, products: list[Product]) -> Product:
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

    def _outcome(
        self, state: State, before: Model, after: Model, whole: float, predicted: float, products: list[Product]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return what was predicted and what it came to; ``products`` gains what measuring took."""
        if self._timed:
            found, product = side_by_side(state, before, after, self.threads, self.tokens)
            products.append(product)
            return {"speedup": whole / predicted, "latency_ms": predicted}, {
                "speedup": found["speedup"],
                "latency_ms": found["after"],
                "latency_ms_before": found["before"],
            }
        counted_now = parameters(load_model(after.folder))
        measured = counted_now if self._name == "parameters" else size_mib(after.folder, WEIGHTS)
        return {self._name: predicted}, {self._name: measured}


def _say(state: State, lines: list[str]) -> None:
    """Say before the work what it is."""
    for line in lines:
        say(f"  {line}")
