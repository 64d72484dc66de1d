"""What is predicted: the interface of a task. Everything that knows about labels and heads is behind it.

Losses, pruning, quantization, export and reports see only logits and this interface.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from compress.tasks.paired import Difference

Array = NDArray[Any]


class TaskKind(Enum):
    """What a recipe may ask for; ``auto`` looks at the labels."""

    auto = "auto"
    classification = "classification"
    regression = "regression"


class Task(ABC):
    """What is predicted from a text or a pair of texts."""

    name: ClassVar[str]
    """What recipes call it."""
    kind: ClassVar[TaskKind]
    auto: ClassVar[Any]
    """The ``Auto`` class of transformers that builds its models."""
    main_metric: ClassVar[str]
    """The metric that is quoted first, higher is better."""

    @classmethod
    @abstractmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return whether labels, as they are read, look like this task's own."""

    @classmethod
    @abstractmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task that the labels of the training split stand for; raises ValueError for another's."""

    @classmethod
    @abstractmethod
    def of_config(cls, config: Any) -> Self | None:
        """Return the task of a saved model's configuration; None where its head is another task's."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of logits per row."""

    @abstractmethod
    def head_config(self) -> dict[str, Any]:
        """Entries of a transformers configuration that give the model its head."""

    @abstractmethod
    def encode(self, label: object) -> int | float:
        """Return a label as the number used in training; raises ValueError for an unknown one."""

    @abstractmethod
    def predictions(self, logits: Array) -> Array:
        """Logits (rows, outputs) to predictions (rows,)."""

    @abstractmethod
    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Logits (rows, outputs) to one readable prediction a row."""

    @abstractmethod
    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Compare logits (rows, outputs) with labels (rows,)."""

    @abstractmethod
    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """95 % intervals of `metrics`, by metric."""

    @abstractmethod
    def agreement(self, logits: Array, others: Array) -> float:
        """Share of rows on which two models predict the same."""

    @abstractmethod
    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare the main metric of a model with that of another one on the same rows, by a paired test."""
