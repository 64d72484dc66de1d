"""Self-attention relations of one layer (MiniLMv2, arXiv:2012.15828)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.distill.losses.base import Comparison, Loss, Pairs, register
from compress.distill.losses.tensors import real_pairs, total
from compress.errors import Fault
from compress.families.forms.uneven import head_size, kept_heads
from compress.families.registry import can_be_taken_apart, layer_count
from compress.known import NOTHING, Known
from compress.models.quantities import RELATIONS
from compress.settings import at_least
from compress.tensors import wide


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
    real, pairs = mask.bool(), real_pairs(mask)
    log_q, log_p = (_relation(wide(states), heads, real) for states in (student, teacher))
    terms = log_p.exp() * (log_p - log_q)
    return torch.where(pairs, terms, 0.0).sum() / (real.sum() * heads).clamp(min=1)


def _relation(states: Tensor, heads: int, real: Tensor) -> Tensor:
    """Log-softmax of scaled products (batch, heads, tokens, tokens) over real positions."""
    batch, tokens, width = states.shape
    split = torch.where(real[:, :, None], states, 0.0).view(batch, tokens, heads, width // heads).transpose(1, 2)
    scores = split @ split.transpose(2, 3) * (width // heads) ** -0.5
    lowest = torch.finfo(states.dtype).min
    relation: Tensor = scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1)
    return relation


@register("relations")
@dataclass(kw_only=True)
class Relations(Loss):
    """Query-query, key-key and value-value relations of one layer (MiniLMv2, arXiv:2012.15828)."""

    teacher_layer: int | None = None  # compared with the student's last; default: the last
    relation_heads: int | None = (
        None  # must divide both widths; default: the teacher's heads, or fewer where those do not
    )

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
        if self.relation_heads is None or not can_be_taken_apart(student):
            return
        widths = [_width(student, ours), _width(teacher, theirs)]
        if any(width % self.relation_heads for width in widths):
            rule = f"must divide the widths that are compared, {widths[0]} and {widths[1]}"
            yield Fault("relation_heads", self.relation_heads, rule, f"For example {math.gcd(*widths)}.")

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the sum of the three relations' losses, each with factor 1 (eq. 2 of the paper)."""
        ((ours, theirs),) = self.pairs(comparison.layers, comparison.last)
        student, teacher = comparison.student, comparison.teacher
        sides = [(student[quantity][ours], teacher[quantity][theirs]) for quantity in RELATIONS]
        common = math.gcd(*(states.shape[-1] for states in sides[0]))
        most = self.relation_heads or comparison.teacher_heads
        heads = max(number for number in range(1, min(most, common) + 1) if common % number == 0)
        return total(relation_loss(*states, heads, comparison.student.mask) for states in sides)


def _width(config: Any, layer: int) -> int:
    """Return the width of the queries of a layer."""
    return len(kept_heads(config)[layer - 1]) * head_size(config)
