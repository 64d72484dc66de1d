"""The nearest low-rank matrix on given inputs, against whitening done step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compress.models.low_rank import Spectrum, spectrum, spectrum_of_outputs


def inputs_of(rows: int, width: int, seed: int = 0) -> Tensor:
    """Return inputs (rows, width) whose channels have very different sizes and go together."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(width, width, generator=generator, dtype=torch.float64)
    scale = torch.logspace(0, -2, width, dtype=torch.float64)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) * scale @ mixed + 0.3


def both_ways(weight: Tensor, inputs: Tensor) -> list[Spectrum]:
    """Return the spectrum by inputs and by outputs."""
    outputs = inputs @ weight.T
    moments = [values.T @ values / len(values) for values in (inputs, outputs)]
    return [spectrum(weight, moments[0]), spectrum_of_outputs(moments[1])]


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (7, 7)])
def test_factors_are_those_of_whitening_truncating_and_unwhitening(shape: tuple[int, int]) -> None:
    weight, inputs = (
        torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        inputs_of(200, shape[1]),
    )
    root = torch.linalg.cholesky(inputs.T @ inputs / len(inputs))
    left, values, right = torch.linalg.svd(weight @ root, full_matrices=False)
    for rank in (1, 3, 5):
        naive = left[:, :rank] * values[:rank] @ right[:rank] @ torch.linalg.inv(root)
        tail = values[rank:].square().sum()
        for found in both_ways(weight, inputs):
            up, down = found.factors(weight, rank)
            assert (up.shape, down.shape) == ((shape[0], rank), (rank, shape[1]))
            torch.testing.assert_close(up @ down, naive, rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(found.nearest(weight, rank), naive, rtol=1e-6, atol=1e-8)
            error = (inputs @ (weight - up @ down).T).square().sum(1).mean()
            torch.testing.assert_close(error, tail, rtol=1e-6, atol=1e-12)
            assert found.left_out(rank) == pytest.approx(float(tail), rel=1e-6)
            # either factor has half of the size, so that no precision is lost in the middle
            middle = (inputs @ down.T).square().mean(0)
            torch.testing.assert_close(middle, values[:rank], rtol=1e-5, atol=1e-9)
            torch.testing.assert_close(up.square().sum(0), values[:rank], rtol=1e-5, atol=1e-9)


def test_no_other_matrix_of_the_rank_is_nearer_on_the_inputs() -> None:
    weight, inputs = (
        torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)),
        inputs_of(300, 6),
    )
    found = both_ways(weight, inputs)[0]
    plain_left, plain_values, plain_right = torch.linalg.svd(weight, full_matrices=False)
    plain = plain_left[:, :2] * plain_values[:2] @ plain_right[:2]
    errors = [(inputs @ (weight - other).T).square().sum(1).mean() for other in (found.nearest(weight, 2), plain)]
    assert errors[0] < 0.9 * errors[1]  # what the inputs are matters
    up, down = (factor.requires_grad_() for factor in found.factors(weight, 2))
    (inputs @ (weight - up @ down).T).square().sum(1).mean().backward()
    assert up.grad is not None
    assert down.grad is not None
    assert float(up.grad.norm()) < 1e-6
    assert float(down.grad.norm()) < 1e-6


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_inputs_of_few_directions_need_no_inverse(shape: tuple[int, int]) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(3))
    inputs = inputs_of(100, 2) @ torch.randn(
        2, shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    )
    for found in both_ways(weight.double(), inputs):
        for rank in (2, 4):
            up, down = found.factors(weight, rank)
            assert torch.isfinite(up).all()
            assert torch.isfinite(down).all()
            torch.testing.assert_close(inputs.float() @ (up @ down).T, inputs.float() @ weight.T, rtol=1e-3, atol=1e-3)
