"""What criteria ask of the parts of a model.

Parts are grouped, mostly one group per layer. What is measured of them is one tensor (parts,) for each group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

Batch = Mapping[str, Tensor]


class Parts(ABC):
    """One kind of part. All have gates; what else can be measured, the other classes of this file say."""

    name: ClassVar[str]
    """In the plural, as messages have it."""

    @abstractmethod
    def sizes(self, config: Any) -> list[int]:
        """Return how many parts each group has."""

    @abstractmethod
    def gated(self, model: PreTrainedModel, gates: list[Tensor]) -> AbstractContextManager[None]:
        """Let ξ · (what a part adds) take the place of what it adds; gates ξ are (rows, parts), one for each group."""


class Weighed(ABC):
    """Parts that have weights of their own."""

    @abstractmethod
    def norms(self, model: PreTrainedModel) -> list[Tensor]:
        """Return the size of each part's weights."""


class Active(ABC):
    """Parts whose activity can be measured on rows."""

    @abstractmethod
    def activity(self, model: PreTrainedModel, batch: Batch) -> tuple[list[Tensor], int]:
        """Return each part's activity, summed over real tokens, and over how many it was summed."""


class Dispensable(ABC):
    """Parts that can be left out one at a time, of which there are few."""

    @abstractmethod
    def without(self, model: PreTrainedModel, group: int, part: int) -> AbstractContextManager[None]:
        """Leave one part out for a while."""


@contextmanager
def inputs_changed(modules: Sequence[nn.Module], changes: Sequence[Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Pass what each module is given through its function."""
    handles = [
        module.register_forward_pre_hook(lambda _, given, change=change: (change(given[0]),))
        for module, change in zip(modules, changes, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def outputs_changed(modules: Sequence[nn.Module], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass what each module gives through a function."""
    handles = [module.register_forward_hook(lambda _, given, output: change(output)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
