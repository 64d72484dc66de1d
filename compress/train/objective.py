"""Interfaces of training: the objective, and rows in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.models.outputs import INPUTS
from compress.tasks.heads import logits_of
from compress.tasks.registry import task_of_config


class TrainingRows(Protocol):
    """Rows to train on, by number and in batches."""

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens per row."""
        ...

    @property
    def words(self) -> np.ndarray[Any, Any] | None:
        """The numbers in the vocabulary that any batch may have, ascending; None where that is not known."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> int: ...

    def batch(self, rows: list[int]) -> dict[str, Tensor]:
        """Return the objective's inputs for these rows."""
        ...


@dataclass(frozen=True)
class Whole:
    """The batch that a part belongs to."""

    sizes: Mapping[str, int]  # as `Objective.sizes`, of all parts together
    drawn: Any  # what `Objective.draw` gave for it

    def share(self, name: str, size: int) -> float:
        """Return by what a mean over ``size`` things of a part counts in that over the whole batch."""
        return size / self.sizes[name] if self.sizes[name] else 0.0


class Objective(nn.Module, ABC):
    """A module whose call ``(batch, progress)`` returns (loss, {part: loss}); progress is 0 to 1.

    Of one that is not `indivisible`, a third argument `Whole` says that the batch is a part of that one. The loss and
    its parts are then what this part contributes: over all parts they add up to those of the whole batch.
    """

    reads_rows_alone: ClassVar[bool] = False
    """Whether it reads the word embeddings of its rows' own pieces and no others, as an output layer does."""

    @property
    @abstractmethod
    def trained(self) -> PreTrainedModel:
        """The model that learns."""

    @property
    def indivisible(self) -> str:
        """Why a batch must stay whole, as a clause; empty where parts can be computed one after another."""
        return "its loss is not known to be a mean over rows or tokens"

    def draw(self, progress: float) -> Any:
        """Return what is drawn once for a whole batch."""
        return None

    def sizes(self, batch: Mapping[str, Tensor], progress: float) -> Mapping[str, int]:
        """Return over how many things of a batch each part of the loss is a mean; of one that can be divided."""
        raise NotImplementedError(type(self).__name__)


class Supervised(Objective):
    """Fine-tuning: the loss that the model's own head defines for labels, or another of logits and labels."""

    reads_rows_alone = True

    def __init__(self, model: PreTrainedModel, loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    @property
    def trained(self) -> PreTrainedModel:
        """The model that learns."""
        return self.model

    @property
    def indivisible(self) -> str:
        """Empty: labels are compared row by row, or in groups that stay together."""
        return ""

    def sizes(self, batch: Mapping[str, Tensor], progress: float) -> Mapping[str, int]:
        """Return the number of labels."""
        return {"labels": task_of_config(self.model.config).labels_in(batch["labels"])}

    def forward(
        self, batch: Mapping[str, Tensor], progress: float, whole: Whole | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; it has no parts."""
        size = 0 if whole is None else self.sizes(batch, progress)["labels"]
        inputs = {name: batch[name] for name in (*INPUTS, "labels") if name in batch}
        if self.loss is None and (whole is None or size):  # a head's own mean over no labels is NaN
            loss = self.model(**inputs).loss
        else:
            labels = inputs.pop("labels")
            logits = logits_of(self.model(**inputs))
            loss = logits.sum() * 0 if self.loss is None else self.loss(logits, labels)
        return loss if whole is None else loss * whole.share("labels", size), {}
