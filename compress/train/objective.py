"""Interfaces of training: the objective, and rows in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.models.outputs import INPUTS
from compress.tasks.heads import logits_of


class TrainingRows(Protocol):
    """Rows to train on, by number and in batches."""

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens per row."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> int: ...

    def batch(self, rows: list[int]) -> dict[str, Tensor]:
        """Return the objective's inputs for these rows."""
        ...


class Objective(nn.Module, ABC):
    """A module whose call ``(batch, progress)`` returns (loss, {part: loss}); progress is 0 to 1."""

    @property
    @abstractmethod
    def trained(self) -> PreTrainedModel:
        """The model that learns."""


class Supervised(Objective):
    """Fine-tuning: the loss that the model's own head defines for labels, or another of logits and labels."""

    def __init__(self, model: PreTrainedModel, loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    @property
    def trained(self) -> PreTrainedModel:
        """The model that learns."""
        return self.model

    def forward(self, batch: Mapping[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; it has no parts."""
        inputs = {name: batch[name] for name in (*INPUTS, "labels") if name in batch}
        if self.loss is None:
            return self.model(**inputs).loss, {}
        labels = inputs.pop("labels")
        return self.loss(logits_of(self.model(**inputs)), labels), {}
