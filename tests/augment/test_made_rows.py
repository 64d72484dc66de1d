"""Rows that are made by number: the same at every call, recombined, perturbed, never one that is measured."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from compress.augment.made_rows import MadeRows, MadeTokens, halves
from compress.augment.words import cut, joined
from compress.data.dataset import Split
from compress.distill.stream import Stream
from compress.models.tokens import tokenize
from tests.conftest import reviews, tiny_tokenizer

TEXTS = Split(tuple(text for _, text in reviews(60, 1)))
PAIRS = Split(("a b c", "d e f", "g h i"), ("1 2", "3 4", "5 6"))
NOTHING = {"halves_rate": 0.0, "mask_rate": 0.0, "replace_rate": 0.0, "ngram_rate": 0.0}


def made(rows: Split, measured: tuple[Split, ...] = (), seed: int = 3, **rates: float) -> MadeRows:
    return MadeRows(rows, measured, Stream(**(NOTHING | rates)), "[MASK]", seed)


def test_a_row_depends_on_seed_and_number_alone() -> None:
    rates = {"halves_rate": 0.5, "mask_rate": 0.2, "replace_rate": 0.2, "ngram_rate": 0.3}
    first, again = made(TEXTS, **rates), made(TEXTS, **rates)
    forwards = [first[number] for number in range(50)]
    assert [again[number] for number in reversed(range(50))][::-1] == forwards
    assert [pickle.loads(pickle.dumps(first))[number] for number in range(5)] == forwards[:5]
    assert [made(TEXTS, seed=4, **rates)[number] for number in range(50)] != forwards
    assert len(set(forwards)) > 45


def test_without_any_change_rows_are_those_that_are_there() -> None:
    assert {made(TEXTS)[number][0] for number in range(400)} == set(TEXTS.texts)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("a b c", "d e f g", "a b f g"), ("a", "b c d", "a d"), ("good film!", "It was (very) dull.", "good film) dull."),
     ("a b.", "c , d", "a b d"), ("a", "b", "a")],
)  # fmt: skip
def test_a_text_goes_on_as_another_ends(first: str, second: str, expected: str) -> None:
    words = halves(cut(first), cut(second))
    assert joined(words.words, words.gaps) == expected


def test_halves_are_of_two_texts_and_of_pairs_the_second_is_another_rows() -> None:
    texts = Split(tuple(f"{letter}1 {letter}2 {letter}3 {letter}4" for letter in "abcdefgh"))
    for number in range(50):
        (text,) = made(texts, halves_rate=1.0)[number]
        words = text.split()
        assert [word[1] for word in words] == ["1", "2", "3", "4"]
        assert words[0][0] == words[1][0]
        assert words[2][0] == words[3][0]
    pairs = {made(PAIRS, halves_rate=1.0)[number] for number in range(200)}
    assert pairs == {(first, second) for first in PAIRS.texts for second in PAIRS.pairs or ()}


def test_words_are_masked_and_replaced_and_texts_cut_at_their_rates() -> None:
    long = Split((" ".join(f"w{number}" for number in range(1000)),))
    (text,) = made(long, mask_rate=0.3, replace_rate=0.2)[0]
    words = text.split()
    changed = [word for place, word in enumerate(words) if word not in {f"w{place}", "[MASK]"}]
    assert len(words) == 1000
    assert words.count("[MASK]") == pytest.approx(300, abs=60)
    assert len(changed) == pytest.approx(200, abs=60)
    assert set(changed) <= set(long.texts[0].split())
    lengths = {len(made(long, ngram_rate=1.0)[number][0].split()) for number in range(100)}
    assert lengths == {1, 2, 3, 4, 5}


def test_frequent_words_come_more_often() -> None:
    often = Split(("a a a a a a a a a b",) * 5)
    text = " ".join(made(often, replace_rate=1.0)[number][0] for number in range(200))
    assert text.split().count("a") / len(text.split()) == pytest.approx(0.9, abs=0.04)


def test_no_row_is_one_that_is_measured() -> None:
    texts = Split(("the plot", "a film", "so dull"))
    measured = Split(("The  plot",)), Split(("A film",))
    assert {made(texts, measured)[number][0] for number in range(100)} == {"so dull"}


def test_tokens_are_those_of_the_texts_and_batches_of_any_order_agree() -> None:
    rows = made(TEXTS, halves_rate=1.0)
    tokens = MadeTokens(rows, 1000, tiny_tokenizer(), 8)
    batch = tokens.batch([7, 2, 900])
    whole = tokenize(Split(tuple(rows[number][0] for number in (7, 2, 900))), tiny_tokenizer(), 8).batch([0, 1, 2])
    assert batch["rows"].tolist() == [7, 2, 900]
    for name in whole.keys() - {"rows"}:
        torch.testing.assert_close(batch[name], whole[name], atol=0, rtol=0)
    assert len(tokens) == 1000
    assert tokens.lengths.nbytes == 8000
    assert tokens.lengths.base.nbytes <= 8  # type: ignore[union-attr]  # nothing is stored for each row
    assert np.all(tokens.lengths == 8)
