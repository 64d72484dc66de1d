"""Self-attention relations of one layer (MiniLMv2, arXiv:2012.15828)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, Pairs, register
from compress.distill.losses.mean_over import MeanOver
from compress.distill.losses.tensors import divergence, total
from compress.errors import Fault
from compress.families.forms.uneven import head_size, kept_heads
from compress.families.registry import known_family, layer_count
from compress.known import NOTHING, Known
from compress.models.quantities import RELATIONS
from compress.settings import at_least
from compress.tensors import wide

HEADS_BASE, HEADS_LARGE, LARGE = 48, 64, 1024
"""The paper's relation heads, of teachers narrower than a large one and of others; the width of a large one."""


def relation_loss(student: Tensor, teacher: Tensor, heads: int, mask: Tensor) -> Tensor:
    """KL(teacher || student) in nats of scaled dot-product relations, mean over heads and real positions.

    Queries, keys or values (batch, tokens, width) of any two widths, each cut into ``heads`` relation heads;
    the relation of a head is softmax(A Aᵀ / sqrt(width / heads)) over real positions. The value relation of
    MiniLM (arXiv:2002.10957) and all relations of MiniLMv2 (Wang et al., arXiv:2012.15828, eq. 4-7). Raises
    ValueError where a width is not a multiple of ``heads``.
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(f"{tuple(student.shape[:2])} positions cannot be compared with {tuple(teacher.shape[:2])}")
    for width in (student.shape[-1], teacher.shape[-1]):
        if heads < 1 or width % heads:
            raise ValueError(f"a width of {width} cannot be cut into {heads} relation heads")
    ours, theirs = (_products(wide(states), heads, mask.bool()) for states in (student, teacher))
    return divergence(ours, theirs, mask)


def _products(states: Tensor, heads: int, real: Tensor) -> Tensor:
    """Scaled products of real positions (batch, heads, tokens, tokens)."""
    batch, tokens, width = states.shape
    split = torch.where(real[:, :, None], states, 0.0).view(batch, tokens, heads, width // heads).transpose(1, 2)
    products: Tensor = split @ split.transpose(2, 3) * (width // heads) ** -0.5
    return products


def relation_heads(student: int, teacher: int, wanted: int | None = None) -> tuple[int, int]:
    """Return into how many relation heads both widths are cut, and how many are wanted.

    The first is the divisor of both widths that is nearest to the second, of two the smaller; the second is by default
    the paper's 48, or 64 for a teacher as wide as a large one.
    """
    wanted = wanted or (HEADS_LARGE if teacher >= LARGE else HEADS_BASE)
    common = math.gcd(student, teacher)
    divisors = [number for number in range(1, common + 1) if common % number == 0]
    return min(divisors, key=lambda number: abs(number - wanted)), wanted


@register("relations")
@dataclass(kw_only=True)
class Relations(Loss):
    """Query-query, key-key and value-value relations of one layer (MiniLMv2, arXiv:2012.15828)."""

    teacher_layer: int | None = None  # compared with the student's last; default: the last
    relation_heads: int | None = None  # must divide both widths; default: 48, of wide teachers 64, or what is nearest

    mean_over = MeanOver.tokens
    quantities = RELATIONS
    part_by_part = False

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Layers and heads are counted from 1, the teacher has the layer, and the heads divide both widths."""
        yield from super().faults(known)
        yield from at_least(self, "teacher_layer", 1)
        yield from at_least(self, "relation_heads", 1)
        if known.layers is not None:
            yield from self._unfit(known.student, known.teacher, known.layers)

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Compare the student's last layer with the chosen one."""
        return ((last[0], self.teacher_layer or last[1]),)

    def _unfit(self, student: Any, teacher: Any, pairs: Pairs) -> Iterator[Fault]:
        ((ours, theirs),) = pairs
        if theirs > layer_count(teacher):
            yield Fault("teacher_layer", theirs, f"must be at most the teacher's {layer_count(teacher)} layers")
            return
        if self.relation_heads is None or known_family(student) is None:
            return
        widths = [_width(student, ours), _width(teacher, theirs)]
        if any(width % self.relation_heads for width in widths):
            rule = f"must divide the widths that are compared, {widths[0]} and {widths[1]}"
            yield Fault("relation_heads", self.relation_heads, rule, f"For example {math.gcd(*widths)}.")

    def notes(self, student: Any, teacher: Any, pairs: Pairs) -> Iterator[str]:
        """Say how many relation heads there are."""
        if known_family(student) and known_family(teacher):
            ((ours, theirs),) = pairs
            widths = _width(student, ours), _width(teacher, theirs)
            heads, wanted = relation_heads(*widths, self.relation_heads)
            why = "" if heads == wanted else f"; {wanted} do not divide both widths, {widths[0]} and {widths[1]}"
            yield f"relations are compared by {heads} relation heads{why}"

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the sum of the three relations' losses, each with factor 1 (eq. 2 of the paper)."""
        ((ours, theirs),) = self.pairs(comparison.layers, comparison.last)
        student, teacher = comparison.student, comparison.teacher
        sides = [(student[quantity][ours], teacher[quantity][theirs]) for quantity in RELATIONS]
        widths = (sides[0][0].shape[-1], sides[0][1].shape[-1])
        heads, _ = relation_heads(*widths, self.relation_heads)
        return total(relation_loss(*states, heads, comparison.student.mask) for states in sides)


def _width(config: Any, layer: int) -> int:
    """Return the width of the queries of a layer."""
    return len(kept_heads(config)[layer - 1]) * head_size(config)
