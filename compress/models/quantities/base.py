"""A quantity: something that a model computes for each row, and that losses compare layer by layer."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.errors import Fault
from compress.known import Known

Captured = Callable[[Any], Mapping[int, Tensor]]
"""From what the model's forward returned to the values by layer, (batch, …) each."""


class Quantity(ABC):
    """What a loss reads of a student and a teacher. A file or a small class is a new one; nothing else knows it.

    Layers are counted from 1; 0 is what comes before the first of them.
    """

    name: ClassVar[str]
    """Of its files on disk; no two quantities have the same."""
    dtype: ClassVar[str] = "float16"
    """On disk. Rounding to float16, about 1e-3 of a value's size, is far below a squared error of layers."""
    asks: ClassVar[Mapping[str, Any]] = {}
    """What the model's forward must be told, beside its inputs."""
    pools: ClassVar[bool] = False
    """Whether it is (batch, tokens, width), so that the pieces of a word have a mean, where tokenizers differ."""
    outlives_skipping: ClassVar[bool] = False
    """Whether a layer that LayerDrop skips has it all the same."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Return its name in its module, where it has one: what unpickles it finds the same quantity, not another."""
        for name, value in vars(sys.modules[type(self).__module__]).items():
            if value is self:
                return name
        return super().__reduce__()

    @abstractmethod
    def capture(self, model: PreTrainedModel, layers: Iterator[int]) -> AbstractContextManager[Captured]:
        """Watch one forward of ``model``. ``layers`` are the numbers of the layers that run, in their order."""

    @abstractmethod
    def token_axes(self, axes: int) -> tuple[int, ...]:
        """Return which of a row's ``axes`` are tokens: there a row takes as much as its length; padding is zeros."""

    def faults(self, known: Known) -> Iterator[Fault]:
        """Yield why ``layers`` of both models cannot be compared part by part; settings are the loss's own."""
        yield from ()

    def kept(self, student: Any, teacher: Any, pair: tuple[int, int]) -> list[int] | None:
        """Return where the teacher's layer has the parts that the student's kept; None where it kept all."""
        return None

    def select(self, values: Tensor, kept: list[int]) -> Tensor:
        """Return the ``kept`` parts of a teacher's layer."""
        raise NotImplementedError(f"{self.name} has no parts")

    def projections(self, student: Any, teacher: Any) -> dict[str, nn.Linear]:
        """Return what brings a student's values to the teacher's width, to be learned; nothing where they fit."""
        return {}

    def projected_by(self, layer: int) -> str:
        """Return the name of the one of `projections` for a layer."""
        raise NotImplementedError(f"{self.name} is compared as it is")
