"""Losses that look inside both models, as a preparation: TinyBERT's intermediate-layer distillation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from compress.distill.keep_best import head_note
from compress.distill.losses import LOSSES
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.state import State
from compress.settings import nearest
from compress.train import Training


def layer_losses() -> list[str]:
    """Return the names of the losses that need neither labels nor logits."""
    return [name for name, loss in LOSSES.items() if loss().compares_layers]


@dataclass(kw_only=True)
class LayerTraining(Training):
    """Settings of training with such losses alone."""

    reads_unlabelled: ClassVar[bool] = True

    losses: list[str] = field(
        default_factory=lambda: ["hidden", "attention", "embeddings"]
    )  # losses on states inside the models
    weights: list[float] = field(default_factory=list)  # a factor for each of the losses, in their order; default: 1
    layer_map: Any = None  # uniform, skip, first, last, or teacher layers as [2,4,6]; default: the student's own
    teacher_outputs: Keep = Keep.auto  # auto: disk where they fit into cache_gib, else forward; disk; forward
    cache_gib: float = 8.0  # largest disk space for the teacher's outputs
    layer_drop: float = 0.0  # probability with which a step skips each layer of the student; 0: none (LayerDrop)

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Losses are known and look inside, each once, with a weight each, and fit the models as `Distill` says."""
        chosen, inside = True, layer_losses()
        for name in self.losses:
            if name not in inside:
                chosen = False
                rule = "needs labels or logits" if name in LOSSES else "is not a loss"
                yield Fault("losses", name, rule, nearest(name, inside))
        if len(set(self.losses)) < len(self.losses):
            yield Fault("losses", self.losses, "names a loss twice")
        elif self.weights and len(self.weights) != len(self.losses):
            yield Fault("weights", self.weights, f"must be as many as the {len(self.losses)} losses, or none")
        elif chosen:
            yield from self.distill().faults(replace(known, stages={}))  # which are neighbours of `distill` itself
            return
        yield from super().faults(known)

    @property
    def skipping(self) -> float:
        """The rate of LayerDrop."""
        return self.layer_drop

    def distill(self) -> Distill:
        """Return the distillation with these losses."""
        weights = self.weights or [1.0] * len(self.losses)
        losses = {name: LOSSES[name](weight=weight) for name, weight in zip(self.losses, weights, strict=True)}
        shared = {setting.name for setting in fields(LayerTraining)} - {"losses", "weights"}
        return Distill(losses=losses, **{name: getattr(self, name) for name in shared})


@dataclass(kw_only=True)
class Layers(LayerTraining):
    """Intermediate layers on the task's rows, before predictions (TinyBERT's task stage, arXiv:1909.10351)."""

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """There is nothing to stop early by: the head is not trained here."""
        yield from super().faults(known)
        if self.early_stopping:
            yield Fault("early_stopping", self.early_stopping, "means nothing while the head is not trained", "Set 0.")

    def plan(self, plan: Plan) -> Plan:
        """One training."""
        return self.distill().planned(plan, "layers", plan.teacher)

    def __call__(self, state: State) -> State:
        """Return the state with the student's encoder trained; its head, which no loss reaches, stays as it was."""
        start = state.given_student
        product = self.distill().train(state, start, "layers", comparable=False)
        notes = (head_note(state, start, Model.of(product)), *product.record["notes"])
        record = self.record("layers", [product], notes=notes, curves=product.record["curves"])
        return state.with_student(record)
