"""A method of setting weights to zero, the settings that all methods read, and zeros set at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from transformers import PreTrainedModel

from compress.distill.sparsify import AbsoluteValues, Masks, Sparsify
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.loading import load_model
from compress.models.masking import Pattern, mask, matrices, settle
from compress.pipeline.model import Model
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.prune.rounds import Scope
from compress.settings import at_least, between, nearest


@dataclass(kw_only=True)
class Sparsity(Stage):
    """Which weights leave and how many, whatever the method."""

    method: str = "magnitude"  # magnitude, movement or lottery
    sparsity: float = 0.5  # share of the pruned matrices' weights that is zero at the end
    pattern: str = "none"  # none: single weights; n:m along the inputs, as 2:4; blocks outputs x inputs, as 4x1
    scope: Scope = Scope.layer  # layer: the same share of each matrix; all: compare over the whole model
    embeddings: bool = False  # word embeddings too
    recovery_epochs: float = 2.0  # distillation while weights are removed and after; per round of lottery; 0: none

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges, the pattern, and that the method exists and reads every setting that is given."""
        yield from between(self, "sparsity", 0, 1, open_low=True, open_high=True)
        yield from at_least(self, "recovery_epochs", 0)
        yield from self.pattern_faults()
        if self.scope is Scope.raw:
            yield Fault("scope", "raw", "has no meaning for weights", "Use all or layer.")
        method = METHODS.get(self.method)
        if method is None:
            yield Fault("method", self.method, "is not a method of pruning weights", nearest(self.method, METHODS))
            return
        if self.recovery_epochs == 0 and method.trains:
            rule = f"trains nothing, and {self.method} finds out by training which weights to remove"
            yield Fault("recovery_epochs", 0, rule, "Set it above 0, or use method=magnitude.")
        plain, read = type(self)(), {field.name for field in fields(method.settings)}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in read and value != getattr(plain, field.name):
                yield Fault(field.name, getattr(value, "value", value), f"has no effect on method = {self.method}")

    def pattern_faults(self) -> Iterator[Fault]:
        """Check that the pattern can be read and that the other settings allow it."""
        try:
            pattern = Pattern.parse(self.pattern)
        except ValueError as error:
            yield Fault("pattern", self.pattern, str(error))
            return
        if pattern.group and self.sparsity != (share := 1 - pattern.kept / pattern.group):
            remedy = f"Set sparsity={share:.17g}."
            yield Fault("sparsity", self.sparsity, f"must be 1 - n/m with pattern = {self.pattern}", remedy)
        if pattern.group and self.scope is Scope.all:
            yield Fault("scope", "all", "has no effect on n:m, which takes as many from every group")

    def of_absolute_values(self, sparsity: float) -> Sparsify:
        """Return how the smallest weights leave at once."""
        return Sparsify(
            sparsity=sparsity, pattern=self.pattern, together=self.scope is Scope.all, embeddings=self.embeddings,
            scores=AbsoluteValues(),
        )  # fmt: skip


S = TypeVar("S", bound=Sparsity)


class Method(ABC, Generic[S]):
    """A way to find the weights that leave, and to set them to zero."""

    settings: ClassVar[type[Sparsity]] = Sparsity
    """The settings that it reads: those of all methods, or a class that adds its own."""
    trains: ClassVar[bool] = True
    """Whether it cannot do without training."""
    from_before_distillation: ClassVar[bool] = False
    """Whether it goes back to weights that no earlier stage of pruning has changed."""

    def trainings(self, stage: S) -> int:
        """Return how many trainings of ``recovery_epochs`` it takes."""
        return 1

    @abstractmethod
    def __call__(self, stage: S, state: State) -> list[Product]:
        """Return what was made on the way; the last is the student with all zeros."""


METHODS: dict[str, Method[Any]] = {}
"""The methods by the names that recipes use."""

MethodClass = TypeVar("MethodClass", bound=type[Method[Any]])


def register(name: str) -> Callable[[MethodClass], MethodClass]:
    """Return a decorator that makes a method choosable, as ``prune.weights.method=<name>``.

    Raises ValueError where another method has that name.
    """

    def named(method: MethodClass) -> MethodClass:
        known = METHODS.get(name)
        if known is not None and type(known) is not method:
            raise ValueError(f"There is a method {name!r} already: {type(known).__name__}. Choose another name.")
        METHODS[name] = method()
        return method

    return named


def at_once(stage: Sparsity, state: State, judged: Model, pruned: Model, sparsity: float) -> Product:
    """Return ``pruned`` with zeros where the weights of ``judged`` are smallest."""

    def change(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
        zero_smallest(load_model(judged.folder), model, stage.of_absolute_values(sparsity))
        return Rewritten(model, tokenizer)

    settings = [stage.pattern, stage.scope.value, stage.embeddings, sparsity]
    return rewrite(state.workshop, Kind("weights", revision=1), pruned, [judged.key, *settings], change)


@torch.no_grad()
def zero_smallest(judged: PreTrainedModel, pruned: PreTrainedModel, how: Sparsify) -> None:
    """Zero the weights of ``pruned``, in place, where those of ``judged``, of the same shapes, are smallest.

    It can be the same model. What is zero in ``judged`` already stays among the smallest.
    """
    chosen = Masks(judged, replace(how, scores=AbsoluteValues()))
    chosen.finish()
    if judged is not pruned:
        ours = matrices(pruned, embeddings=how.embeddings).values()
        for module, (_, theirs) in zip(ours, chosen.masked, strict=True):
            mask(module, chosen.pattern).mask.copy_(theirs.mask)
    settle(pruned)
