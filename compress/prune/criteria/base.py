"""A criterion, by which parts of a model are compared before the least important are removed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.errors import Fault
from compress.prune.parts import Parts
from compress.settings import nearest

Batches = Iterable[Mapping[str, Tensor]]


class Criterion(ABC):
    """An estimate of the importance of parts."""

    needs: ClassVar[type] = Parts
    """What parts must be for it to be defined: all have gates; see `compress.prune.parts.base` for the others."""

    @abstractmethod
    def __call__(self, model: PreTrainedModel, parts: Parts, batches: Batches) -> list[Tensor]:
        """Return the importance of every part, one tensor (parts,) for each group, not normalised.

        The model is in evaluation mode; its own gradients stay untouched.
        """


CRITERIA: dict[str, Criterion] = {}
"""The criteria by the names that recipes use."""

RENAMED = {
    "taylor": ("is called fisher now, for it squares gradients row by row", "Use fisher; or molchanov, by mini-batch.")
}
"""Names of earlier versions: what became of each, and the remedy."""

CriterionClass = TypeVar("CriterionClass", bound=type[Criterion])


def register(name: str) -> Callable[[CriterionClass], CriterionClass]:
    """Return a decorator that makes a criterion choosable, as ``prune.heads.importance=<name>``.

    Raises ValueError where another criterion has that name.
    """

    def named(criterion: CriterionClass) -> CriterionClass:
        known = CRITERIA.get(name)
        if known is not None and type(known) is not criterion:
            raise ValueError(f"There is a criterion {name!r} already: {type(known).__name__}. Choose another name.")
        CRITERIA[name] = criterion()
        return criterion

    return named


def importance_of(model: PreTrainedModel, parts: Parts, batches: Batches, criterion: str) -> list[Tensor]:
    """Return the importance of every part by a criterion, one tensor (parts,) for each group, not normalised.

    Means are over rows or tokens, not over batches. Raises ValueError where the criterion is not defined for the parts.
    """
    chosen = CRITERIA[criterion]
    if not isinstance(parts, chosen.needs):
        raise ValueError(f"{parts.name} have no importance by {criterion}")
    with evaluating(model):
        return chosen(model, parts, batches)


def criterion_faults(setting: str, name: str, parts: Parts) -> Iterator[Fault]:
    """Yield why a criterion cannot be used for these parts."""
    defined = [known for known, criterion in CRITERIA.items() if isinstance(parts, criterion.needs)]
    if name in RENAMED and name not in CRITERIA:
        yield Fault(setting, name, *RENAMED[name])
    elif name not in CRITERIA:
        yield Fault(setting, name, "is not a criterion", nearest(name, defined))
    elif name not in defined:
        yield Fault(setting, name, f"is not defined for {parts.name}", f"Use one of {', '.join(defined)}.")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def on_device(model: nn.Module, batches: Batches) -> Iterator[Mapping[str, Tensor]]:
    """Yield batches where the model is."""
    device: torch.device = next(model.parameters()).device
    for batch in batches:
        yield {name: value.to(device) for name, value in batch.items()}
