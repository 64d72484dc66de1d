"""A matrix as the product of two thin ones."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return left (rows, rank) and right (rank, columns), whose product is the nearest of that rank to ``matrix``.

    A truncated singular value decomposition (Eckart & Young, 1936): the rows of ``right`` are the first
    right singular vectors, orthonormal; ``left`` is ``matrix`` in their coordinates, so that a row of zeros
    stays one. Computed in float64 from matrixᵀ·matrix, for matrices with far more rows than columns.
    Raises ValueError for a rank outside 1 … columns.
    """
    if not 1 <= rank <= matrix.shape[1]:
        raise ValueError(f"rank {rank} must lie in [1, {matrix.shape[1]}]")
    exact = matrix.double()
    _, vectors = torch.linalg.eigh(exact.T @ exact)  # from the smallest to the largest
    right = vectors[:, -rank:].flip(-1).T.contiguous()
    return (exact @ right.T).to(matrix.dtype), right.to(matrix.dtype)
