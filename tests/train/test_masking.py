"""Masking: how often, what is put there, and that a step repeated hides the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from compress.train.masking import HIDDEN, Masking, masking_of
from tests.conftest import VOCABULARY, tiny_tokenizer
from tests.test_train import tokens

MASK = VOCABULARY.index("[MASK]")


def masking(share: float = 0.15, seed: int = 3) -> Masking:
    return masking_of(tiny_tokenizer(), share, seed)


def test_fifteen_percent_are_chosen_and_eighty_ten_ten_of_them_masked_replaced_and_kept() -> None:
    rows = tokens(2000)
    fates: Counter[str] = Counter()
    hideable = 0
    drawn: Counter[int] = Counter()
    batch = rows.batch(list(range(2000)))
    ids, labels = masking()(batch, 0.5)
    before = batch["input_ids"]
    special = (before < 5) | ~batch["attention_mask"].bool()
    hideable = int((~special).sum())
    chosen = labels != HIDDEN
    assert not (chosen & special).any()
    assert torch.equal(labels[chosen], before[chosen])
    assert torch.equal(ids[~chosen], before[~chosen])
    for was, now in zip(before[chosen].tolist(), ids[chosen].tolist(), strict=True):
        fates["masked" if now == MASK else "kept" if now == was else "random"] += 1
        drawn[now] += now not in (MASK, was)
    count = int(chosen.sum())
    assert count / hideable == pytest.approx(0.15, abs=0.01)  # 15,000 tokens: four standard errors are 0.012
    # a random piece may be the mask or the piece itself: 1/21 of a tenth each
    assert fates["masked"] / count == pytest.approx(0.8 + 0.1 / 25, abs=0.03)
    assert fates["random"] / count == pytest.approx(0.1 * 23 / 25, abs=0.025)
    assert fates["kept"] / count == pytest.approx(0.1 + 0.1 / 25, abs=0.025)
    assert len([number for number, times in drawn.items() if times]) > len(VOCABULARY) / 2


def test_the_same_step_hides_the_same_and_another_step_row_or_seed_does_not() -> None:
    rows = tokens(60)
    batch = rows.batch(list(range(60)))
    first, again = masking()(batch, 0.25), masking()(batch, 0.25)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], masking()(batch, 0.26)[1])
    assert not torch.equal(first[1], masking(seed=4)(batch, 0.25)[1])
    assert torch.equal(batch["input_ids"], rows.batch(list(range(60)))["input_ids"])


def test_what_else_is_in_the_batch_does_not_matter() -> None:
    rows = tokens(40)
    width = int(rows.lengths.max())
    together = masking()(rows.batch(list(range(40))), 0.5)
    for row in (0, 7, 39):
        length = int(rows.lengths[row])
        alone = masking()(rows.batch([row]), 0.5)
        assert length <= width
        for item, all_of_them in zip(alone, together, strict=True):
            assert torch.equal(item[0], all_of_them[row, :length])


def test_rare_pieces_are_hidden_more_often_and_the_share_holds() -> None:
    counts = np.array([0, 900, 40, 10, 6, *[1 + 37 * n for n in range(len(VOCABULARY) - 5)]], dtype=float)
    chances = masking_of(tiny_tokenizer(), 0.15, 3, counts, 0.7).chances
    special = tiny_tokenizer().all_special_ids
    ordinary = [n for n in range(len(VOCABULARY)) if n not in special]
    assert all(chances[n] == 0 for n in special)
    assert sum(counts[n] * chances[n] for n in ordinary) == pytest.approx(0.15 * sum(counts[n] for n in ordinary))
    first = next(n for n in ordinary if 0 < chances[n] < 1)
    for n in ordinary:
        if chances[n] < 1:
            assert chances[n] / chances[first] == pytest.approx((counts[first] / counts[n]) ** 0.7)


def test_a_piece_so_rare_that_its_chance_would_pass_one_is_always_hidden_and_the_others_make_up_for_it() -> None:
    special = tiny_tokenizer().all_special_ids
    counts = np.where(np.isin(np.arange(len(VOCABULARY)), special), 0.0, 100_000.0)
    rare = next(n for n in range(len(VOCABULARY)) if n not in special)
    counts[rare] = 1.0
    chances = masking_of(tiny_tokenizer(), 0.4, 3, counts, 1.0).chances
    assert chances[rare] == 1.0
    others = [n for n in range(len(VOCABULARY)) if n not in special and n != rare]
    assert {round(float(chances[n]), 12) for n in others} == {round(float(chances[others[0]]), 12)}
    assert float((counts * chances).sum()) == pytest.approx(0.4 * counts.sum())


@pytest.mark.parametrize(("counts", "smoothing"), [(None, 0.7), (np.arange(1.0, 1 + len(VOCABULARY)), 0.0)])
def test_without_counts_or_smoothing_all_are_alike(counts: Any, smoothing: float) -> None:
    assert np.array_equal(masking_of(tiny_tokenizer(), 0.15, 3, counts, smoothing).chances, masking().chances)
