"""Tensors that are compared or summed: of one shape, and wide enough."""

from __future__ import annotations

import torch
from torch import Tensor


def alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, wide enough to sum; raises ValueError where their shapes differ."""
    if student.shape != teacher.shape:
        raise ValueError(f"{tuple(student.shape)} cannot be compared with {tuple(teacher.shape)} element by element")
    return wide(student), wide(teacher)


def wide(values: Tensor) -> Tensor:
    """Return fp16 and bf16 as fp32; others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
