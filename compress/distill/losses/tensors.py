"""What the losses share: which positions count, and their sum.

Means are over what is real: positions that are not padding; where nothing is, they are 0. Half precision is widened to
fp32, in which sums do not overflow. Losses that compare two tensors element by element raise ValueError where their
shapes differ: broadcasting would give a number that means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from compress.tensors import alike


def real_pairs(mask: Tensor) -> Tensor:
    """Return which pairs of positions (batch, 1, tokens, tokens) are both real."""
    real = mask.bool()
    return real[:, None, :, None] & real[:, None, None, :]


def divergence(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student) in nats of softmax over real keys, mean over heads and real queries.

    Scores before the softmax (batch, heads, tokens, tokens). It is computed from logarithms of probabilities, so the
    gradient in the student's scores is the difference of the probabilities, also where one of them is too small for
    its own number.
    """
    pairs, sides = real_pairs(mask), alike(student, teacher)
    log_q, log_p = (_log_probabilities(scores, pairs) for scores in sides)
    return (log_p.exp() * (log_p - log_q)).where(pairs, 0.0).sum() / (mask.bool().sum() * student.shape[1]).clamp(min=1)


def _log_probabilities(scores: Tensor, pairs: Tensor) -> Tensor:
    """Return the log-softmax over real keys; 0 where a position is padding."""
    return scores.where(pairs, torch.finfo(scores.dtype).min).log_softmax(-1).where(pairs, 0.0)


def total(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of scalars, at least one."""
    return torch.stack(list(terms)).sum()
