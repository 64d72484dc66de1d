"""Logits: what a model answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from compress.models.quantities.base import Captured, Quantity
from compress.tasks.heads import logits_of


class Logits(Quantity):
    """(batch, outputs) or, of a task with an answer for every token, (batch, tokens, outputs); as layer 0."""

    name: ClassVar[str] = "logits"
    dtype: ClassVar[str] = "float32"
    outlives_skipping: ClassVar[bool] = True

    @contextmanager
    def capture(self, model: PreTrainedModel, layers: Iterator[int]) -> Iterator[Captured]:
        """Take them from what the model returns."""

        def taken(returned: Any) -> dict[int, Tensor]:
            return {0: logits_of(returned)}

        yield taken

    def token_axes(self, axes: int) -> tuple[int, ...]:
        """All but the outputs."""
        return tuple(range(axes - 1))


LOGITS = Logits()
