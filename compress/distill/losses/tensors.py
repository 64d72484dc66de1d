"""What the losses share: which positions count, and their sum.

Means are over what is real: positions that are not padding; where nothing is, they are 0. Half precision is widened to
fp32, in which sums do not overflow. Losses that compare two tensors element by element raise ValueError where their
shapes differ: broadcasting would give a number that means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def real_pairs(mask: Tensor) -> Tensor:
    """Return which pairs of positions (batch, 1, tokens, tokens) are both real."""
    real = mask.bool()
    return real[:, None, :, None] & real[:, None, None, :]


def probabilities(student: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax over real keys of both sides' attention scores (batch, heads, tokens, tokens)."""
    padding = ~mask.bool()[:, None, None, :]
    lowest = torch.finfo(student.dtype).min
    return student.masked_fill(padding, lowest).softmax(-1), teacher.masked_fill(padding, lowest).softmax(-1)


def total(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of scalars, at least one."""
    return torch.stack(list(terms)).sum()
