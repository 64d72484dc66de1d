"""Low-rank products: the best of their rank, to zero rows faithful."""

from __future__ import annotations

import pytest
import torch

from compress.models.low_rank import low_rank


def test_the_product_is_as_near_as_a_product_of_that_rank_can_be() -> None:
    matrix = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
    left, right = low_rank(matrix, 3)
    assert (left.shape, right.shape) == ((30, 3), (3, 7))
    lost = torch.linalg.svdvals(matrix)[3:].norm()  # Eckart and Young
    torch.testing.assert_close((matrix - left @ right).norm(), lost)


def test_at_full_rank_nothing_is_lost_and_rows_of_zeros_stay_so() -> None:
    matrix = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
    matrix[4] = 0
    left, right = low_rank(matrix, 7)
    torch.testing.assert_close(left @ right, matrix)
    assert not left[4].any()


@pytest.mark.parametrize("rank", [0, 8])
def test_a_rank_that_cannot_be_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        low_rank(torch.ones(30, 7), rank)
