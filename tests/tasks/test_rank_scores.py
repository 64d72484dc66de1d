"""nDCG and reciprocal rank of groups, beside other programs' and a loop over every order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from compress.tasks.rank_scores import MRR, NDCG, rank


def drawn(seed: int, groups: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores with ties, graded relevance, and the groups of rows in mixed order."""
    generator = np.random.default_rng(seed)
    numbers = generator.permutation(np.repeat(np.arange(groups) * 3, generator.integers(2, 18, groups)))
    return generator.integers(-4, 5, len(numbers)) / 2, generator.integers(0, 4, len(numbers)), numbers


def test_ndcg_is_that_of_scikit_learn_equal_scores_included() -> None:
    scores, relevance, groups = drawn(1)
    theirs = [
        ndcg_score(relevance[None, groups == group], scores[None, groups == group], k=10)
        for group in np.unique(groups)
        if relevance[groups == group].any()
    ]
    np.testing.assert_allclose(rank(scores, relevance, groups).ndcg, theirs, rtol=1e-12)


def test_reciprocal_ranks_are_the_mean_over_all_orders_of_equal_scores() -> None:
    scores, relevance = np.array([3.0, 1.0, 1.0, 1.0, 1.0, 0.5]), np.array([0, 0, 2, 0, 1, 1])
    orders = [order for order in permutations(range(6)) if all(np.diff(scores[list(order)]) <= 0)]
    expected = np.mean([1 / (1 + int((relevance[list(order)] > 0).argmax())) for order in orders])
    assert rank(scores, relevance, np.zeros(6)).metrics()[MRR] == pytest.approx(expected)


def test_groups_without_a_relevant_row_do_not_count() -> None:
    scores, relevance, groups = np.array([2.0, 1.0, 9.0, 8.0]), np.array([0, 1, 0, 0]), np.array([7, 7, 3, 3])
    found = rank(scores, relevance, groups)
    assert found.metrics() == {NDCG: pytest.approx(1 / np.log2(3)), MRR: 0.5}
    assert rank(scores, np.zeros(4), groups).metrics() == {NDCG: 0.0, MRR: 0.0}


def test_a_ranking_differs_from_its_reverse_but_not_from_itself_scaled() -> None:
    scores, relevance, groups = drawn(2)
    good = rank(relevance + scores / 10, relevance, groups)
    assert good.difference(rank(-scores, relevance, groups), NDCG).clear
    same = good.difference(rank(5 * relevance + scores / 2, relevance, groups), NDCG)
    assert (same.value, same.clear) == (0.0, False)


def test_intervals_are_drawn_over_groups_not_rows() -> None:
    scores, relevance, groups = drawn(3)
    once = rank(scores, relevance, groups)
    low, high = once.intervals()[NDCG]
    assert low < once.metrics()[NDCG] < high
    error = once.ndcg.std() / np.sqrt(len(once.ndcg))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
