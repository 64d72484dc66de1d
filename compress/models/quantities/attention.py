"""What passes through attention: scores, queries, keys and values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from compress.errors import Fault
from compress.families.base import Attention
from compress.families.forms.uneven import head_size, kept_heads
from compress.families.registry import principal_config
from compress.known import Known
from compress.models.attention import listening
from compress.models.quantities.base import Captured, Quantity


class InAttention(Quantity):
    """A quantity that attention has by heads. A skipped layer has no attention."""

    @abstractmethod
    def of(self, attention: Attention) -> Tensor:
        """Return what is kept of one layer's attention, (batch, …)."""

    @contextmanager
    def capture(self, model: PreTrainedModel, layers: Iterator[int]) -> Iterator[Captured]:
        """Listen to the model's attention."""
        heard: dict[int, Tensor] = {}

        def note(attention: Attention) -> None:
            heard[next(layers)] = self.of(attention)

        with listening(model, note):
            yield lambda _: heard

    def faults(self, known: Known) -> Iterator[Fault]:
        """Each head is compared with the same head: the teacher must have those that the student has."""
        ours, theirs = known.student.num_attention_heads, known.teacher.num_attention_heads
        if ours != theirs:
            rule = f"needs equal head counts; student {ours}, teacher {theirs}"
            yield Fault("", None, rule, f"Set student.heads={theirs}, or leave this loss out.")
            return
        kept, there = kept_heads(known.student), kept_heads(known.teacher)
        if any(not set(kept[s - 1]) <= set(there[t - 1]) for s, t in known.layers or ()):
            yield Fault("", None, "needs heads that the teacher no longer has", "Leave it out.")

    def kept(self, student: Any, teacher: Any, pair: tuple[int, int]) -> list[int] | None:
        """Return the places of the heads that the student keeps."""
        ours, theirs = kept_heads(student)[pair[0] - 1], kept_heads(teacher)[pair[1] - 1]
        return None if ours == theirs else [theirs.index(head) for head in ours]


class Scores(InAttention):
    """Scores before masking and softmax, (batch, heads, tokens, tokens)."""

    name: ClassVar[str] = "scores"

    def of(self, attention: Attention) -> Tensor:
        """Return the scores."""
        return attention.scores

    def token_axes(self, axes: int) -> tuple[int, ...]:
        """Queries and keys."""
        return (1, 2)

    def select(self, values: Tensor, kept: list[int]) -> Tensor:
        """Return the scores of these heads."""
        return values[:, kept]


class Projected(InAttention):
    """Queries, keys or values, (batch, tokens, heads * head size)."""

    pools: ClassVar[bool] = True

    def token_axes(self, axes: int) -> tuple[int, ...]:
        """The first."""
        return (0,)

    def kept(self, student: Any, teacher: Any, pair: tuple[int, int]) -> list[int] | None:
        """Return the places of the units of the heads that the student keeps."""
        heads, size = super().kept(student, teacher, pair), head_size(principal_config(teacher))
        return None if heads is None else [head * size + unit for head in heads for unit in range(size)]

    def select(self, values: Tensor, kept: list[int]) -> Tensor:
        """Return these units."""
        return values[..., kept]


class Queries(Projected):
    """The queries of all heads, side by side."""

    name: ClassVar[str] = "queries"

    def of(self, attention: Attention) -> Tensor:
        """Return the queries."""
        return side_by_side(attention.query)


class Keys(Projected):
    """The keys of all heads, side by side."""

    name: ClassVar[str] = "keys"

    def of(self, attention: Attention) -> Tensor:
        """Return the keys."""
        return side_by_side(attention.key)


class Values(Projected):
    """The values of all heads, side by side."""

    name: ClassVar[str] = "values"

    def of(self, attention: Attention) -> Tensor:
        """Return the values."""
        return side_by_side(attention.value)


def side_by_side(heads: Tensor) -> Tensor:
    """(batch, heads, tokens, size) to (batch, tokens, heads * size)."""
    return heads.transpose(1, 2).flatten(2)


SCORES, QUERIES, KEYS, VALUES = Scores(), Queries(), Keys(), Values()
RELATIONS = (QUERIES, KEYS, VALUES)
"""What relations of MiniLMv2 are made of."""
