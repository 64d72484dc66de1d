"""Members: what each model of an ensemble answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.models.quantities.base import Captured, Quantity


class Members(Quantity):
    """(batch, members, 1 + outputs), as layer 0: the logarithm of a member's share in the row's answer, its logits.

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


def softened(members: Tensor, temperature: float) -> Tensor:
    """Return logits (batch, outputs) whose softmax at a temperature is the mean of the members' own at it.

    (Hinton et al., arXiv:1503.02531, section 5.2.) ``members`` are as `Members` has them; the mean is weighted by
    their shares.
    """
    logs = (members[..., 1:] / temperature).log_softmax(-1)
    return temperature * torch.logsumexp(members[..., :1] + logs, dim=1)
