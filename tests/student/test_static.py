"""The static student: against a loop, its start against the teacher's own states, and with a smaller vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.models.evaluate import predict_rows
from compress.models.static import StaticForSequenceClassification, hashed
from compress.models.token_states import principal_components, states_of
from compress.models.tokens import tokenize
from compress.models.vocabulary import used_pieces, with_pieces, with_rows
from compress.student.base import Material
from compress.student.static import Static
from compress.student.words import Pieces, WordStart
from tests.conftest import tiny_model, tiny_tokenizer
from tests.student.test_words import PAIRS, TEXTS


def built(student: Static, split: Split, family: str = "bert") -> tuple[StaticForSequenceClassification, Any]:
    """Return a static student with bigrams that say something, and its tokenizer."""
    teacher, theirs = tiny_model(family), tiny_tokenizer(family)
    ours = student.tokenizer(theirs, split)
    torch.manual_seed(1)
    model = student.build(teacher, Material(theirs, ours, split.pairs is not None, rows=split))
    assert isinstance(model, StaticForSequenceClassification)
    if model.pairs_of_tokens is not None:
        torch.nn.init.normal_(model.pairs_of_tokens.weight)
    return model, ours


def mean_of(model: StaticForSequenceClassification, before: int | None, ids: list[int]) -> Tensor:
    """Return the weighted mean of one text, token by token; ``before`` stands in front of its first token."""
    total, weights = torch.zeros(model.config.embedding_size), 0.0
    for token in ids:
        weight = float(model.weights.weight[token, 0].exp())
        state = model.embeddings.weight[token]
        if model.pairs_of_tokens is not None:
            code = 0 if before is None else int(model.codes[before])
            row = (code * 1_000_003 + int(model.codes[token]) * 8_191) % model.config.bigrams
            state = state + model.pairs_of_tokens.weight[row]
        total, weights, before = total + weight * state, weights + weight, token
    return total / weights


@pytest.mark.parametrize("bigrams", [0, 7])
@torch.no_grad()
def test_a_text_is_the_weighted_mean_of_its_tokens_and_bigrams(bigrams: int) -> None:
    model, tokenizer = built(Static(bigrams=bigrams, embedding_size=8, hidden_size=6), TEXTS)
    tokens = tokenize(TEXTS, tokenizer, 32)
    logits = predict_rows(model, tokens)
    for row in range(len(TEXTS)):
        ids = tokens.columns["input_ids"][tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        expected = model.classifier(model.hidden(mean_of(model, None, ids)).relu())
        np.testing.assert_allclose(logits[row], expected.numpy(), atol=1e-5)


@torch.no_grad()
def test_the_second_text_of_a_pair_is_compared_with_the_first() -> None:
    model, tokenizer = built(Static(bigrams=7, embedding_size=8), PAIRS)
    tokens = tokenize(PAIRS, tokenizer, 32)
    logits = predict_rows(model, tokens)
    for row in range(len(PAIRS)):
        part = slice(tokens.offsets[row], tokens.offsets[row + 1])
        ids, types = tokens.columns["input_ids"][part], tokens.columns["token_type_ids"][part]
        first, second = ids[types == 0].tolist(), ids[types == 1].tolist()
        a, b = mean_of(model, None, first), mean_of(model, first[-1], second)
        expected = model.classifier(model.hidden(torch.cat([a, b, a * b, (a - b).abs()])).relu())
        np.testing.assert_allclose(logits[row], expected.numpy(), atol=1e-5)


@torch.no_grad()
def test_only_bigrams_tell_one_order_of_words_from_another() -> None:
    texts = Split(("good film awful", "awful film good"))
    for bigrams, same in ((0, True), (50, False)):
        model, tokenizer = built(Static(bigrams=bigrams), texts)
        first, second = predict_rows(model, tokenize(texts, tokenizer, 32))
        assert np.allclose(first, second, atol=1e-6) is same


def test_the_hash_fills_its_table_evenly() -> None:
    codes = torch.arange(1, 201)
    pairs = torch.cartesian_prod(codes, codes)
    counts = np.bincount(hashed(pairs, 1000)[:, 1].numpy(), minlength=1000)
    assert counts.sum() == 40_000
    assert counts.max() <= 3 * counts.mean()


@torch.no_grad()
def test_embeddings_start_as_the_principal_components_of_the_teachers_states() -> None:
    teacher, tokenizer = tiny_model(), tiny_tokenizer()
    model, _ = built(Static(embedding_size=3), TEXTS)
    states = np.stack([_state(teacher, tokenizer, number) for number in range(teacher.config.vocab_size)])
    states *= np.sqrt(np.square(teacher.get_input_embeddings().weight.numpy()).mean() / np.square(states).mean())
    centred = states - states.mean(0)
    u, s, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    own = model.embeddings.weight.numpy().copy()
    expected = u[:, :3] * s[:3]
    padding = tokenizer.pad_token_id
    own[padding] = expected[padding] = 0
    for column in range(3):
        sign = np.sign(own[:, column] @ expected[:, column])
        np.testing.assert_allclose(own[:, column], sign * expected[:, column], atol=1e-4)


def _state(teacher: PreTrainedModel, tokenizer: Any, number: int) -> np.ndarray[Any, Any]:
    row = torch.tensor([[tokenizer.cls_token_id, number, tokenizer.sep_token_id]])
    state: np.ndarray[Any, Any] = teacher.base_model(input_ids=row).last_hidden_state[0].mean(0).numpy()
    return state


@torch.no_grad()
def test_a_word_is_read_as_its_pieces_and_padding_is_not() -> None:
    teacher, tokenizer = tiny_model(), tiny_tokenizer()
    states = states_of(teacher, tokenizer, [[7, 8, 9], [10]])
    row = torch.tensor([[tokenizer.cls_token_id, 7, 8, 9, tokenizer.sep_token_id]])
    torch.testing.assert_close(states[0], teacher.base_model(input_ids=row).last_hidden_state[0].mean(0))
    np.testing.assert_allclose(states[1].numpy(), _state(teacher, tokenizer, 10), atol=1e-6)


def test_more_components_than_the_states_have_are_zeros() -> None:
    rows = torch.randn(20, 4)
    wide = principal_components(rows, 6)
    assert wide.shape == (20, 6)
    assert torch.equal(wide[:, 4:], torch.zeros(20, 2))
    centred = rows - rows.mean(0)
    torch.testing.assert_close(wide @ wide.T, centred @ centred.T, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frequent_tokens_weigh_less() -> None:
    model, tokenizer = built(Static(smoothing=0.01, tokens=Pieces.words, min_count=1), TEXTS)
    counts: dict[int, int] = {}
    for text in TEXTS.texts:
        for number in tokenizer(text)["input_ids"]:
            counts[number] = counts.get(number, 0) + 1
    total = sum(counts.values())
    weights = model.weights.weight.exp()[:, 0]
    for number in range(len(tokenizer)):
        assert float(weights[number]) == pytest.approx(0.01 / (0.01 + counts.get(number, 0) / total), rel=1e-5)


@torch.no_grad()
def test_fewer_tokens_give_the_same_answers_bigrams_and_all() -> None:
    model, tokenizer = built(Static(bigrams=50), TEXTS)
    before = predict_rows(model, tokenize(TEXTS, tokenizer, 32))
    columns = [tokenize(TEXTS, tokenizer, 32).columns["input_ids"]]
    keep = sorted(used_pieces(tokenizer, columns, TEXTS.all_texts()))
    assert len(keep) < len(tokenizer)
    smaller = with_pieces(tokenizer, keep)
    with_rows(model, keep, smaller)
    assert model.weights.weight.shape[0] == len(keep)
    np.testing.assert_array_equal(predict_rows(model, tokenize(TEXTS, smaller, 32)), before)


def test_the_start_may_be_the_teachers_word_embeddings() -> None:
    model, _ = built(Static(start=WordStart.teacher, embedding_size=None), TEXTS)
    assert torch.equal(model.embeddings.weight[5], tiny_model().get_input_embeddings().weight[5])
