"""Hidden states: of the embeddings, and of every layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.forms.uneven import kept_channels, unpruned_size
from compress.models.quantities.base import Captured, Quantity


class Hidden(Quantity):
    """(batch, tokens, hidden); layer 0 is the embeddings' output. A skipped layer hands on what it is given.

    A student narrower than its teacher is compared through two learned matrices, W_h for the states of all layers
    and W_e for the embeddings (TinyBERT, arXiv:1909.10351, eq. 8 and 9). They start at random; where the student
    had the teacher's width before channels were removed, they start by putting each channel where it was. A student
    whose weights are of another pretraining (``own_basis`` in its configuration) has both at any width: nothing says
    that its channels mean what the teacher's do.
    """

    name: ClassVar[str] = "hidden"
    pools: ClassVar[bool] = True
    asks: ClassVar[Mapping[str, Any]] = {"output_hidden_states": True}
    outlives_skipping: ClassVar[bool] = True

    @contextmanager
    def capture(self, model: PreTrainedModel, layers: Iterator[int]) -> Iterator[Captured]:
        """Take them from what the model returns."""

        def taken(returned: Any) -> dict[int, Tensor]:
            return dict(enumerate(returned.hidden_states))

        yield taken

    def token_axes(self, axes: int) -> tuple[int, ...]:
        """The first."""
        return (0,)

    def projections(self, student: Any, teacher: Any) -> dict[str, nn.Linear]:
        """Return W_h and W_e where widths or bases differ."""
        widths, apart = (int(student.hidden_size), int(teacher.hidden_size)), getattr(student, "own_basis", False)
        if widths[0] == widths[1] and not apart:
            return {}
        made = {name: nn.Linear(*widths, bias=False) for name in ("states", "embeddings")}
        places = None if apart else _places(student, teacher)
        if places is not None:
            with torch.no_grad():
                for projection in made.values():
                    projection.weight.copy_(places)
        return made

    def projected_by(self, layer: int) -> str:
        """Return the embeddings' own for layer 0."""
        return "states" if layer else "embeddings"


def _places(student: Any, teacher: Any) -> Tensor | None:
    """Return the matrix (teacher's width, student's) that puts kept channels where they were; None where none was."""
    ours, theirs = kept_channels(student), kept_channels(teacher)
    if unpruned_size(student) != unpruned_size(teacher) or not set(ours) <= set(theirs):
        return None
    places = torch.zeros(len(theirs), len(ours))
    places[[theirs.index(channel) for channel in ours], range(len(ours))] = 1
    return places


HIDDEN = Hidden()
