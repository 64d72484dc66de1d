"""A matrix as the product of two thin ones, nearest to it as it is or on the inputs that it is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST = 1e-7  # share of the strongest direction below which one counts as absent


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


@dataclass(frozen=True)
class Spectrum:
    """The directions in which a matrix W (outputs, inputs) answers to inputs x, the strongest first.

    With S Sᵀ = E[x xᵀ] they are the left singular vectors of W S.
    """

    directions: Tensor  # (outputs, count), orthonormal, float64
    strengths: Tensor  # (count,), the singular values: √E[(direction · W x)²]

    def left_out(self, rank: int) -> float:
        """Return E‖W x - W′ x‖² for the nearest matrix W′ of a rank, the sum of the other strengths' squares."""
        return float(self.strengths[rank:].square().sum())

    def nearest(self, weight: Tensor, rank: int) -> Tensor:
        """Return the product of `factors`, in the precision of ``weight``."""
        basis = self.directions[:, :rank].to(weight)
        return basis @ (basis.T @ weight)

    def factors(self, weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Return up (outputs, rank) and down (rank, inputs), whose product is nearest to ``weight`` on those inputs.

        SVD-LLM's truncation-aware whitening (Wang et al., arXiv:2403.12403): with W S = U Σ Vᵀ the least
        E‖W x - W′ x‖² is that of W′ = U_k Σ_k V_kᵀ S⁻¹, and √Σ_k goes to either factor. Since
        U_kᵀ W S = Σ_k V_kᵀ, W′ is also U_k U_kᵀ W, which needs no inverse and holds where S has none.
        """
        basis, size = self.directions[:, :rank], self.strengths[:rank].clamp(min=_LEAST * float(self.strengths[0]))
        root = size.clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        return (basis * root).to(weight.dtype), (basis.T @ weight.double() / root[:, None]).to(weight.dtype)


@torch.no_grad()
def spectrum(weight: Tensor, inputs: Tensor) -> Spectrum:
    """Return the spectrum of a matrix (outputs, inputs), with E[x xᵀ] of its inputs (inputs, inputs) in float64."""
    values, vectors = torch.linalg.eigh(inputs)
    rooted = weight.double() @ (vectors * values.clamp(min=0).sqrt())  # W S
    squares, right = torch.linalg.eigh(rooted.T @ rooted)
    strengths = squares.clamp(min=0).sqrt().flip(0)
    absent = strengths <= _LEAST * strengths[0]
    return Spectrum(rooted @ right.flip(1) / strengths.masked_fill(absent, torch.inf), strengths)


@torch.no_grad()
def spectrum_of_outputs(outputs: Tensor) -> Spectrum:
    """Return the spectrum of a matrix W with E[W x (W x)ᵀ] (outputs, outputs) in float64."""
    squares, vectors = torch.linalg.eigh(outputs)
    return Spectrum(vectors.flip(1), squares.clamp(min=0).sqrt().flip(0))
