"""Pruning in rounds: measure, remove, recover, and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from compress.distill.keep_best import fallen
from compress.distill.stage import planned_recovery
from compress.errors import Fault
from compress.families.forms.uneven import is_low_rank
from compress.families.registry import FAMILIES, can_be_taken_apart, remarks, type_in_words
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_config, load_model
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.prune.criteria import criterion_faults, importance_of
from compress.prune.gradual import Gradual
from compress.prune.parts import Parts
from compress.settings import between


class Scope(Enum):
    """all: the least important of the whole model, by layers of one mean size; raw: as measured; layer: by layer."""

    all = "all"
    raw = "raw"
    layer = "layer"


@dataclass(kw_only=True)
class InRounds(Gradual):
    """Remove what the loss misses least, in one round or several, with recovery after each."""

    ratio: float = 0.3  # share removed, over all layers; every layer keeps at least one
    scope: Scope = Scope.all  # all: compare layers after scaling each to one size; raw: as they are; layer: same share
    importance: str = "gradient"  # by which criterion

    kind: ClassVar[Kind]  # of what this makes; its name says what is removed, in the plural: "heads"
    parts: ClassVar[Parts]  # what is removed
    cuts_matrices: ClassVar[bool] = True
    """Whether matrices lose rows and columns, which low-rank ones cannot."""

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges, that the criterion is defined for the parts, and that the student's parts are known."""
        yield from between(self, "ratio", 0, 1, open_high=True)
        yield from super().faults(known)
        yield from criterion_faults("importance", self.importance, self.parts)
        if known.student is not None and not can_be_taken_apart(known.student):
            rule = f"cannot remove {self.kind.name} from a student of type {type_in_words(known.student)}"
            yield Fault(
                "ratio", self.ratio, rule, f"Supported: {', '.join(FAMILIES)}. Leave {self.kind.name} out of prune."
            )
        elif known.student is not None and self.cuts_matrices and is_low_rank(known.student):
            rule = f"cannot remove {self.kind.name} from a student with low-rank matrices"
            yield Fault("ratio", self.ratio, rule, f"Leave {self.kind.name} out of prune.")

    def without(self, model: PreTrainedModel, keep: list[list[int]]) -> PreTrainedModel:
        """Return the smaller model."""
        raise NotImplementedError

    def remaining(self, before: int, done: float) -> int:
        """Return how many of ``before`` are left when the share ``done`` of the work is done."""
        return before - round(self.ratio * before * done)

    def notes(self, before: int, left: list[int]) -> tuple[str, ...]:
        """Say how many were removed, and how many each layer has left."""
        return (f"{before - sum(left):,} of {before:,} {self.kind.name} removed; left, layer by layer: {left}",)

    def chosen_by(self, state: State) -> Any:
        """Return what the choice depends on beside the model."""
        return [self.importance, self.rows, state.data.train.fingerprint, state.seed]

    def kept(
        self, state: State, model: PreTrainedModel, tokenizer: Any, remaining: int
    ) -> tuple[list[list[int]], dict[str, Any]]:
        """Return what to keep of each layer, and what the choice was made by, for the cache."""
        tokens = self.sample(state, tokenizer)
        batches = (tokens.batch(part) for part in tokens.batches(32))
        measured = importance_of(model, self.parts, batches, self.importance)
        return choose(measured, remaining, self.scope), {"importance": [scores.tolist() for scores in measured]}

    def plan(self, plan: Plan) -> Plan:
        """A recovery after each round that removes something."""
        before = sum(self.parts.sizes(plan.student))
        for turn in range(1, self.rounds + 1):
            if self.remaining(before, self.done(turn)) < before:
                plan = planned_recovery(plan, self.recovery_epochs / self.rounds)
        return plan

    def __call__(self, state: State) -> State:
        """Return the state with the smaller student."""
        student = state.given_student
        before = sum(self.parts.sizes(load_model(student.folder).config))
        curves: list[Any] = []
        products: list[Product] = []
        for turn in range(1, self.rounds + 1):
            remaining = self.remaining(before, self.done(turn))
            made_with = [remaining, self.scope.value, self.chosen_by(state)]
            change = partial(self._remove, state, remaining)
            products.append(rewrite(state.workshop, self.kind, student, made_with, change, on=device()))
            student = Model.of(products[-1])
            if remaining < before and (recovered := self.recovered(state, student)) is not None:
                products.append(recovered)
                student = Model.of(recovered)
                curves += recovered.record["curves"]
        config = load_config(student.folder)
        notes = [*self.notes(before, self.parts.sizes(config)), *remarks(config), *fallen(products)]
        record = self.record(self.kind.name, products, notes=notes, curves=curves)
        return state.with_student(record, student)

    def _remove(self, state: State, remaining: int, model: PreTrainedModel, tokenizer: Any) -> Rewritten:
        keep, chosen_by = self.kept(state, model, tokenizer, remaining)
        if [len(kept) for kept in keep] != self.parts.sizes(model.config):
            model = self.without(model, keep)
        return Rewritten(model, tokenizer, chosen_by)


def choose(importance: list[Tensor], remaining: int, scope: Scope) -> list[list[int]]:
    """Return the positions to keep, by layer: the ``remaining`` most important, at least one per layer.

    Over all layers importance is compared after dividing each layer's by its root mean square, or as it is; by layer,
    each keeps the same share, the largest remainders rounded up.
    """
    scores = importance if scope is Scope.raw else normalised(importance)
    share = _shares([len(layer) for layer in scores], remaining) if scope is Scope.layer else None
    keep = [{int(layer.argmax())} for layer in scores]
    order = sorted(
        ((value, layer, place) for layer, s in enumerate(scores) for place, value in enumerate(s.tolist())),
        reverse=True,
    )
    left = remaining - len(keep)
    for _, layer, place in order:
        if place in keep[layer]:
            continue
        if left > 0 if share is None else len(keep[layer]) < share[layer]:
            keep[layer].add(place)
            left -= 1
    return [sorted(kept) for kept in keep]


def normalised(importance: list[Tensor]) -> list[Tensor]:
    """Divide each layer's importance by its root mean square.

    Of layers with as many parts each it gives the order of the l2 norm that Michel et al. (arXiv:1905.10650) divide by,
    which grows with the number of parts: by it, parts of a wide layer would leave before those of a narrow one.
    """
    return [scores / scores.pow(2).mean().sqrt().clamp(min=1e-20) for scores in importance]


def _shares(sizes: list[int], remaining: int) -> list[int]:
    """Return how many each layer keeps: its proportion, at least one, largest remainders rounded up."""
    exact = [remaining * size / sum(sizes) for size in sizes]
    share = [max(1, int(value)) for value in exact]
    for layer in sorted(range(len(sizes)), key=lambda i: int(exact[i]) - exact[i]):
        if sum(share) < remaining and share[layer] < sizes[layer]:
            share[layer] += 1
    return share
