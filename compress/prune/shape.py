"""A shape that is given: so many heads and units in each layer, the least important ones removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from compress.distill.keep_best import fallen
from compress.errors import Fault, ModelError
from compress.families.forms.uneven import is_low_rank
from compress.families.registry import FAMILIES, can_be_taken_apart, type_in_words
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_config
from compress.pipeline.model import Model
from compress.pipeline.record import Role
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.prune.costs import GONE, Shape, drawn, shape_of
from compress.prune.criteria import importance_of
from compress.prune.gradual import Gradual
from compress.prune.parts import HEADS, UNITS
from compress.prune.sensitivity import ranking_of


@dataclass(kw_only=True)
class PruneToShape(Gradual):
    """Give every layer the heads and the feed-forward units that are named: those that the loss misses least stay.

    Heads are compared by the gradient of the loss (Michel et al., arXiv:1905.10650), units by their Fisher information,
    as `Budget` compares them, which finds such a shape for a speed.
    """

    heads: list[int] = field(default_factory=list)  # of each layer, the first one first; 0: the layer is left out
    units: list[int] = field(default_factory=list)  # feed-forward units of each layer; 0: the layer is left out

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Both lists have an entry for each layer, a layer is left, and the student has so many parts."""
        faults = [*super().faults(known), *self._malformed()]
        yield from faults
        if self.rounds > 1:
            yield Fault("rounds", self.rounds, "must be 1: a shape is cut at once")
        student = known.student
        if student is None or faults:
            return
        if not can_be_taken_apart(student):
            rule = f"cannot be given to a student of type {type_in_words(student)}"
            yield Fault("heads", self.heads, rule, f"Supported: {', '.join(FAMILIES)}. Leave shape out.")
        elif is_low_rank(student):
            yield Fault("heads", self.heads, "cannot be given to a student with low-rank matrices", "Leave shape out.")
        elif not _cut_elsewhere(self, known) and (reason := too_large(self.shape, shape_of(student))):
            yield Fault("heads", self.heads, reason)

    def _malformed(self) -> Iterator[Fault]:
        if not self.heads or len(self.heads) != len(self.units):
            rule = f"and units = {self.units} must each have an entry for every layer"
            yield Fault("heads", self.heads, rule, "For example heads=[12,8,0] units=[1536,768,0].")
        elif any(heads < 0 or units < 0 or bool(heads) != bool(units) for heads, units in self.shape):
            rule = f"and units = {self.units} must be above 0 in the same layers, and 0 in those that are left out"
            yield Fault("heads", self.heads, rule)
        elif not any(self.heads):
            yield Fault("heads", self.heads, "leaves no layer")

    @property
    def shape(self) -> Shape:
        """The shape of the student."""
        return tuple(zip(self.heads, self.units, strict=True))

    def __call__(self, state: State) -> State:
        """Return the state with the student in this shape; raises ModelError where it is smaller than that."""
        student = state.given_student
        if reason := too_large(self.shape, shape_of(load_config(student.folder))):
            raise ModelError(f"shape.heads = {self.heads}: {reason}.")

        def cut(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            tokens = self.sample(state, tokenizer)
            batches = [tokens.batch(part) for part in tokens.batches(32)]
            heads = importance_of(model, HEADS, batches, "gradient")
            order = ranking_of(heads, importance_of(model, UNITS, batches, "fisher"))
            return Rewritten(order.cut(model, self.shape), tokenizer)

        made_with = [self.shape, self.rows, state.data.train.fingerprint, state.seed]
        products = [rewrite(state.workshop, Kind("shape", revision=1), student, made_with, cut, on=device())]
        after, curves = Model.of(products[0]), list[Any]()
        if (recovered := self.recovered(state, after)) is not None:
            products.append(recovered)
            after, curves = Model.of(recovered), list(recovered.record["curves"])
        notes = [f"heads × units of each layer: {drawn(self.shape)}", *fallen(products)]
        return state.with_student(self.record("shape", products, model=after, notes=notes, curves=curves), after)


def too_large(shape: Shape, whole: Shape) -> str:
    """Return why a model cannot be cut to a shape, as a rule; "" where it can."""
    if len(shape) != len(whole):
        return f"names {len(shape)} layers, and the student has {len(whole)}"
    for layer, (asked, there) in enumerate(zip(shape, whole, strict=True), start=1):
        if asked != GONE and (asked[0] > there[0] or asked[1] > there[1]):
            return f"asks for {drawn([asked])} of layer {layer}, which has {drawn([there])}"
    return ""


def _cut_elsewhere(shape: PruneToShape, known: Known) -> bool:
    """Return whether another stage removes parts too: only the run knows what it finds."""
    return any(stage.role is Role.pruning and stage is not shape for stage in known.stages.values() if stage.recovers)
