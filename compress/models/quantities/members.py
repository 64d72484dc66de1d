"""Members: what each model of an ensemble answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from compress.models.quantities.base import Captured, Quantity


class Members(Quantity):
    """(batch, members, 2, outputs), as layer 0: the logarithm of a member's share in each output, and its logits.

    Kept beside the ensemble's own logits, which are right at temperature 1 only, it gives the answer at any other.
    """

    name: ClassVar[str] = "members"
    dtype: ClassVar[str] = "float32"
    outlives_skipping: ClassVar[bool] = True

    @contextmanager
    def capture(self, model: PreTrainedModel, layers: Iterator[int]) -> Iterator[Captured]:
        """Take them from what the ensemble returns."""

        def taken(returned: Any) -> dict[int, Tensor]:
            return {0: returned.members}

        yield taken

    def token_axes(self, axes: int) -> tuple[int, ...]:
        """None: there is one answer per row."""
        return ()


MEMBERS = Members()
