"""Which parts of a student stay in fp32: how much each one suffers from int8, and how many have to be spared.

Layers differ in what quantization does to them, and bits go where they are needed (Q-BERT, arXiv:1909.05840).
Training and validation rows decide; test rows are never seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from compress.errors import Fault
from compress.families.registry import FAMILIES, known_family
from compress.known import NOTHING, Known
from compress.models.loading import load_model
from compress.models.tokens import Tokens
from compress.onnx.products import whole_part
from compress.pipeline.record import Details
from compress.pipeline.state import State
from compress.quantize.calibration import TOKENS_A_BATCH
from compress.quantize.costs import Validation
from compress.quantize.hessian import omegas
from compress.quantize.qdq import IntegerScheme, with_qdq
from compress.quantize.ranges import Range
from compress.runtimes.onnxruntime import inference_session, logits_of_graph
from compress.runtimes.rows import model_inputs
from compress.settings import Settings, at_least, between, plain
from compress.tasks.base import Array
from compress.tasks.gate import POINT, judged

ROUNDING = 1e-9  # 0.90 - 0.85 is a little more than 0.05


class Grain(Enum):
    """What is told apart: whole encoder layers, or attention and feed-forward network of each."""

    layer = "layer"
    half = "half"


class RankedBy(Enum):
    """loss: how much more a model loses with that part alone in int8; hessian: HAWQ-v2's Ω, of its weights alone."""

    loss = "loss"
    hessian = "hessian"


@dataclass(frozen=True)
class Precisions:
    """A graph that can be had with any choice of its nodes in int8."""

    model: Any  # onnx.ModelProto, fp32
    parts: Mapping[str, Sequence[str]]  # nodes by part of the model
    ranges: Mapping[str, Range]  # of activations
    scheme: IntegerScheme
    grain: Grain = Grain.layer  # of the parts that are told apart

    @property
    def merged(self) -> dict[str, list[str]]:
        """The nodes of each part that is told apart."""
        found: dict[str, list[str]] = {}
        for part, nodes in self.parts.items():
            found.setdefault(_merged(part, self.grain), []).extend(nodes)
        return found

    @property
    def names(self) -> Sequence[str]:
        """The parts that are told apart."""
        return list(self.merged)

    def answers(self, parts: Collection[str], tokens: Tokens) -> Array:
        """Return the logits, as `Tokens.gathered`, with these parts in int8."""
        return self.logits([node for part, own in self.merged.items() if part in parts for node in own], tokens)

    def made(self, nodes: Sequence[str]) -> Any:
        """Return the graph (``onnx.ModelProto``) with these nodes in int8."""
        return with_qdq(self.model, nodes, self.ranges, self.scheme)

    def batches(self, tokens: Tokens) -> Iterable[Array]:
        """Return the numbers of the rows that are given to the graph together."""
        return tokens.batches(max(1, TOKENS_A_BATCH // int(tokens.lengths.max())))

    def logits(self, nodes: Sequence[str], tokens: Tokens) -> Array:
        """Return the logits, as `Tokens.gathered`, with these nodes in int8."""
        session = inference_session(self.made(nodes), threads=0)
        batches = self.batches(tokens)
        return tokens.gathered(
            (rows, logits_of_graph(session, model_inputs(tokens, rows.tolist()))) for rows in batches
        )


@dataclass(frozen=True)
class Part:
    """What int8 does to one part of a model."""

    part: str
    sensitivity: float  # in the measure by which the parts were put in order
    drop: float | None  # of the main metric where it alone is in int8 (order loss)
    precision: str  # that it was given


@dataclass(frozen=True)
class MixedStep:
    """How far the main metric falls with some parts in fp32 and all others in int8."""

    fp32: tuple[str, ...]
    drop: float


@dataclass(frozen=True, kw_only=True)
class MixedSearch(Details):
    """How the parts that stay in fp32 were found, on validation rows."""

    metric: str
    fp32: float  # the metric with nothing in int8
    rows: int
    order: str
    max_drop: float
    parts: tuple[Part, ...]
    steps: tuple[MixedStep, ...]  # the last is the one that was taken

    def report(self) -> dict[str, Any]:
        """Return all of it under one key."""
        return {"sensitivity": asdict(self)}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> MixedSearch:
        """Return what was kept, as `report` has it."""
        parts = tuple(Part(**part) for part in kept["parts"])
        steps = tuple(MixedStep(tuple(step["fp32"]), step["drop"]) for step in kept["steps"])
        return cls(**{**kept, "parts": parts, "steps": steps})

    def __str__(self) -> str:
        first, last = self.steps[0], self.steps[-1]
        return (
            f"in fp32: {', '.join(last.fp32) or 'nothing'}; {self.metric} on {self.rows:,} validation rows "
            f"falls by {last.drop:.4f} from fp32's, at most {self.max_drop:g} was allowed; it fell by "
            f"{first.drop:.4f} with all in int8"
        )


@dataclass(kw_only=True)
class Mixed(Settings):
    """Parts go back to fp32, the most sensitive first, until the metric on validation rows holds."""

    max_drop: float | None = (
        None  # how far the main metric may fall on validation rows; default: no limit, everything in int8
    )
    bound: bool = False  # true: judge the fall by its one-sided 95 % bound, as max_drop of a recipe is
    order: RankedBy = (
        RankedBy.loss
    )  # loss: with a part alone in int8; hessian: trace times quantization error (HAWQ-v2)
    grain: Grain = Grain.layer  # layer; half: a layer's attention and its feed-forward network apart
    rows: int = 2000  # how many validation rows to use at most
    probes: int = 8  # hessian: random vectors per batch of calibration rows

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """All are in their natural ranges, and it is known which part of the student a product is in."""
        yield from between(self, "max_drop", 0, 1)
        yield from at_least(self, "rows", 1)
        yield from at_least(self, "probes", 1)
        if self.max_drop is None and self != Mixed():
            yield Fault("max_drop", None, "must be given, or the other settings have no effect", "For example 0.005.")
        if self.max_drop is not None and known.student is not None and known_family(known.student) is None:
            rule = f"cannot find the layers of a student of type {known.student.model_type}"
            yield Fault("max_drop", self.max_drop, rule, f"Leave it out. Supported: {', '.join(FAMILIES)}.")

    def depends_on(self, state: State) -> list[Any]:
        """Return what the choice depends on, except for graph and ranges; nothing where there is none."""
        return (
            [] if self.max_drop is None else [plain(self), state.data.validation.fingerprint, state.data.task.decides]
        )

    def choose(
        self, state: State, precisions: Precisions, tokenizer: Any, calibration: Tokens
    ) -> tuple[list[str], MixedSearch]:
        """Return the nodes that are to be int8, and how that was found."""
        precisions = replace(precisions, grain=self.grain)
        validation, parts = Validation(state, tokenizer, self.rows), precisions.merged
        task, labels = validation.task, validation.rows.known_labels
        whole = validation.worth(precisions.logits([], validation.tokens))
        drops: dict[str, float | None] = {}
        if self.order is RankedBy.loss:
            costs = validation.costs(precisions, whole)
            sensitivity = {part: cost.loss for part, cost in costs.items()}
            drops = {part: cost.drop for part, cost in costs.items()}
        else:
            sensitivity = self._omegas(state, calibration, precisions.scheme, list(parts))
        waiting = sorted(parts, key=lambda part: -sensitivity[part])
        spared: list[str] = []
        steps: list[MixedStep] = []
        while True:
            nodes = [node for part, own in parts.items() if part not in spared for node in own]
            mixed = validation.worth(precisions.logits(nodes, validation.tokens))
            drop = whole.metric - mixed.metric
            steps.append(MixedStep(tuple(spared), drop))
            good = drop <= (self.max_drop or 0) + ROUNDING
            if self.bound:
                paired = task.difference(mixed.logits, whole.logits, labels)
                good = judged(paired, validation.rows.count, (self.max_drop or 0) / POINT).passed
            if good or not waiting:
                break
            spared.append(waiting.pop(0))
        return nodes, MixedSearch(
            metric=task.main_metric,
            fp32=whole.metric,
            rows=len(validation.rows),
            order=self.order.value,
            max_drop=self.max_drop or 0,
            parts=tuple(
                Part(part, sensitivity[part], drops.get(part), "fp32" if part in spared else "int8") for part in parts
            ),
            steps=tuple(steps),
        )

    def _omegas(self, state: State, tokens: Tokens, scheme: IntegerScheme, parts: Sequence[str]) -> dict[str, float]:
        model = load_model(state.given_student.folder)
        found = omegas(model, tokens, scheme, self.probes, state.seed)
        merged = dict.fromkeys(parts, 0.0)
        for part, omega in found.items():
            name = _merged(part, self.grain)
            if name in merged:
                merged[name] += omega
        return merged


def _merged(part: str, grain: Grain) -> str:
    return part if grain is Grain.half else whole_part(part)
