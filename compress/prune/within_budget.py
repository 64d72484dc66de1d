"""Pruning within a budget of latency, size or parameters: what its ways have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from math import ceil, floor
from typing import Any, ClassVar

from compress.distill.keep_best import fallen
from compress.errors import Fault, RecipeError
from compress.families.registry import FAMILIES, can_be_taken_apart, family_of, remarks, type_in_words
from compress.files import MIB, size_mib
from compress.known import NOTHING, Known
from compress.models.loading import load_config, load_model
from compress.models.outputs import parameters
from compress.models.positions import longest_row
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.record import Details
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.prune.costs import CostTable, amount
from compress.prune.gradual import Gradual
from compress.prune.speeds import side_by_side
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
    costs: CostTable
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
class WithinBudget(Gradual):
    """Make the student smaller so that most is kept within one budget."""

    speedup: float | None = (
        None  # times as fast as the student before pruning: ONNX Runtime fp32, batch 1, real lengths
    )
    latency_ms: float | None = None  # median of a row in ONNX Runtime fp32, batch 1, real lengths
    size_mib: float | None = None  # of the student's file of weights, fp32
    parameters: int | None = None  # the student's in total, embeddings too
    threads: int = 1  # ONNX Runtime's threads, for speedup and latency_ms
    tokens: int | None = None  # row length for these two; default: the training rows' median, then their real lengths
    tries: int = 100  # choices measured around the solver's first, to find a better one; 0: keep the first
    rows: int = 256  # labelled training rows on which importance and losses are measured

    name: ClassVar[str]  # of the stage
    chooses: ClassVar[str]  # what is chosen, as words before "of a student"

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """There is one budget, it can be one, and the student is of a family that can be taken apart."""
        yield from super().faults(known)
        given = [name for name in GOALS if getattr(self, name) is not None]
        if len(given) != 1:
            rule = "exactly one of speedup, latency_ms, size_mib and parameters must be given"
            remedy = f"For example prune.{self.name}.speedup=2." if not given else "Leave out all but one."
            yield Fault(given[1] if given else "speedup", getattr(self, given[1]) if given else None, rule, remedy)
        yield from between(self, "speedup", 1, float("inf"), open_low=True)
        for name in GOALS[1:]:
            yield from positive(self, name)
        yield from at_least(self, "threads", 1)
        yield from at_least(self, "tokens", 2)
        yield from at_least(self, "tries", 0)
        if self.timed and find_spec("onnxruntime") is None:
            yield Fault(given[0], self.wanted, "is measured in onnxruntime", "pip install 'compress-encoders[onnx]'.")
        if known.student is not None:
            yield from self.unfit(known.student)

    def unfit(self, student: Any) -> Iterator[Fault]:
        """Yield what a student cannot be pruned for."""
        if not can_be_taken_apart(student):
            rule = f"cannot choose {self.chooses} of a student of type {type_in_words(student)}"
            remedy = f"Supported: {', '.join(FAMILIES)}. Leave {self.name} out of prune."
            yield Fault(self.goal, self.wanted, rule, remedy)
        elif self.timed and not family_of(student).graph_can_be_resized:
            rule = f"cannot time other sizes of a student of type {student.model_type}"
            yield Fault(self.goal, self.wanted, rule, "Give size_mib or parameters instead.")
        longest = longest_row(student)
        if self.tokens is not None and self.tokens > longest:
            yield Fault("tokens", self.tokens, f"must not exceed the {longest} tokens that the student takes")

    @property
    def goal(self) -> str:
        """The setting that is the budget."""
        return next((name for name in GOALS if getattr(self, name) is not None), GOALS[0])

    @property
    def wanted(self) -> float:
        """Its value."""
        return float(getattr(self, self.goal) or 0)

    @property
    def timed(self) -> bool:
        """Whether the budget is one of time."""
        return self.goal in ("speedup", "latency_ms")

    def plan(self, plan: Plan) -> Plan:
        """A recovery after each round, until the budget is met."""
        return super().plan(plan).bounded(plan)

    @abstractmethod
    def table(self, state: State, student: Model) -> tuple[CostTable, float, str, list[Product]]:
        """Return the table, what the student costs by it, what it was measured on, and the products that it took."""

    @abstractmethod
    def told(self, costs: Any, student: Model) -> str:
        """Return the table in a sentence."""

    @abstractmethod
    def smallest(self, costs: Any) -> str:
        """Return in words what costs least."""

    @abstractmethod
    def cut(self, state: State, student: Model, costs: Any, target: float, products: list[Product]) -> Product:
        """Return the student that loses least within ``target``; ``products`` gains what that took.

        Its record has what is ``predicted``, by the table.
        """

    @abstractmethod
    def drawn(self, record: Mapping[str, Any], student: Model) -> str:
        """Return in words what was chosen."""

    def checked(self, state: State, before: Model, after: Model, products: list[Product]) -> list[str]:
        """Return what is to be said of the last cut; raises RecipeError where it must not be kept."""
        return []

    def spent(self, student: Model, **found: Any) -> Spent:
        """Return what the report tells of it."""
        return Spent(**found)

    def __call__(self, state: State) -> State:
        """Return the state with the smaller student; raises RecipeError where none is within the budget."""
        before = student = state.given_student
        costs, whole, condition, products = self.table(state, student)
        goal = whole / self.wanted if self.goal == "speedup" else self.wanted
        self._refuse(costs, goal, whole)
        notes = [f"{condition}: {amount(whole, costs.unit)} before", self.told(costs, student)]
        _say(notes)
        now, curves = whole, list[Any]()
        for turn in range(1, self.rounds + 1):
            if now <= goal:
                break
            target = goal + (1 - self.done(turn)) * (whole - goal)
            cut = self.cut(state, student, costs, target, products)
            chosen = f"round {turn} of {self.rounds}, {self.drawn(cut.record, student)}"
            student, now = Model.of(cut), cut.record["predicted"]
            notes.append(f"{chosen}; predicted {amount(now, costs.unit)}")
            _say(notes[-1:])
            if turn == self.rounds:
                notes += self.checked(state, before, student, products)
            if (recovered := self.recovered(state, student)) is not None:
                products.append(recovered)
                student, curves = Model.of(recovered), curves + list(recovered.record["curves"])
        predicted, measured = self._outcome(state, before, student, whole, now, products)
        spent = self.spent(
            student,
            budget={self.goal: self.wanted},
            predicted=predicted,
            measured=measured,
            costs=costs,
            condition=condition,
        )
        notes += [str(spent), *remarks(load_config(student.folder)), *fallen(products)]
        record = self.record(self.name, products, model=student, notes=notes, curves=curves, details=spent)
        return state.with_student(record, student)

    def timing_condition(self, tokens: int) -> str:
        """Return under which conditions times are measured."""
        return f"ONNX Runtime fp32, {self.threads} thread{'s' * (self.threads > 1)}, batch 1, {tokens} tokens"

    def _refuse(self, costs: CostTable, goal: float, whole: float) -> None:
        """Raise RecipeError where even the smallest costs more than ``goal``."""
        least = costs.least()
        if least <= goal:
            return
        fast = self.goal == "speedup"
        # rounded to the side that can be had
        enough = f"{ceil(least):,}" if costs.unit == "parameters" else f"{ceil(1000 * least) / 1000:,.3f}"
        best = f"at most {floor(100 * whole / least) / 100:g}" if fast else f"at least {enough} {costs.unit}"
        rule = f"is out of reach: {self.smallest(costs)} has {best}"
        remedy = f"Choose a {'lower' if fast else 'higher'} {self.goal}."
        raise RecipeError([Fault(f"prune.{self.name}.{self.goal}", self.wanted, rule, remedy)])

    def _outcome(
        self, state: State, before: Model, after: Model, whole: float, predicted: float, products: list[Product]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return what was predicted and what it came to; ``products`` gains what measuring took."""
        if self.timed:
            found, product = side_by_side(state, before, after, self.threads, self.tokens)
            products.append(product)
            return {"speedup": whole / predicted, "latency_ms": predicted}, {
                "speedup": found["speedup"],
                "latency_ms": found["after"],
                "latency_ms_before": found["before"],
            }
        counted_now = parameters(load_model(after.folder))
        measured = counted_now if self.goal == "parameters" else size_mib(after.folder, WEIGHTS)
        return {self.goal: predicted}, {self.goal: measured}


def size_aside(student: Model) -> float:
    """Return how many MiB a student's files of weights take beside its parameters: their headers."""
    return size_mib(student.folder, WEIGHTS) - PARAMETER_MIB * parameters(load_model(student.folder))


def _say(lines: list[str]) -> None:
    """Say before the work what it is."""
    for line in lines:
        say(f"  {line}")
