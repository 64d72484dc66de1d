"""Masks: exact numbers in every pattern, against counting in loops; gradients; zeros that stay through training."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.families.registry import FAMILIES
from compress.models.loading import load_model, save_model
from compress.models.masking import Masked, Pattern, hold_zeros, mask, masked_modules, masks, matrices, settle
from compress.models.outputs import observe
from tests.conftest import LIKE_BERT, tiny_batch, tiny_model, tiny_tokenizer


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("none", Pattern()), ("2:4", Pattern(kept=2, group=4)), ("4x1", Pattern(4, 1)), ("32x16", Pattern(32, 16))],
)
def test_patterns_are_read(text: str, pattern: Pattern) -> None:
    assert Pattern.parse(text) == pattern


@pytest.mark.parametrize("text", ["4:4", "0:4", "5:4", "1x1", "0x4", "", "2-4", "4x", "two:four", "2:4 "])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        Pattern.parse(text)


def stays(scores: Tensor, leaving: int) -> set[tuple[int, ...]]:
    """Return the places that stay, by sorting: highest first, and of equal scores the first."""
    places = list(itertools.product(*map(range, scores.shape)))
    order = sorted(places, key=lambda place: -float(scores[place]))  # sorted() is stable
    return set(order[: len(places) - leaving])


def places(kept: Tensor) -> set[tuple[int, ...]]:
    return {tuple(place) for place in kept.nonzero().tolist()}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 0.99), st.lists(st.integers(-2, 2), min_size=72, max_size=72))
def test_exactly_the_lowest_leave_also_where_scores_are_equal(
    rows: int, columns: int, sparsity: float, numbers: list[int]
) -> None:
    first = torch.tensor(numbers[: rows * columns], dtype=torch.float32).reshape(rows, columns)
    second = torch.tensor(numbers[36 : 36 + rows * columns], dtype=torch.float32).reshape(columns, rows)
    each = masks([first, second], sparsity, Pattern(), together=False)
    for scores, kept in zip((first, second), each, strict=True):
        assert places(kept) == stays(scores, round(sparsity * rows * columns))
    whole = torch.cat([first.flatten(), second.flatten()])
    found = masks([first, second], sparsity, Pattern(), together=True)
    assert places(torch.cat([difference.flatten() for difference in found])) == stays(
        whole, round(sparsity * len(whole))
    )


@pytest.mark.parametrize(("sparsity", "left"), [(0.0, 4), (0.2, 3), (0.5, 2)])
def test_n_of_m_takes_from_every_group_of_inputs(sparsity: float, left: int) -> None:
    scores = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    kept = masks([scores], sparsity, Pattern.parse("2:4"), together=False)[0]
    for row in range(5):
        for start in range(0, 12, 4):
            group = scores[row, start : start + 4]
            expected = sorted(range(4), key=lambda place, group=group: -float(group[place]))[:left]
            assert kept[row, start : start + 4].nonzero().flatten().tolist() == sorted(expected)


def test_blocks_are_summed_and_spread_again() -> None:
    values = torch.arange(24.0).reshape(4, 6)
    pattern = Pattern.parse("2x3")
    sums = pattern.gather(values)
    for row, column in itertools.product(range(2), range(2)):
        expected = sum(float(values[2 * row + i, 3 * column + j]) for i in range(2) for j in range(3))
        assert float(sums[row, column]) == expected
    spread = pattern.spread(sums)
    for row, column in itertools.product(range(4), range(6)):
        assert spread[row, column] == sums[row // 2, column // 3]
    assert pattern.fits((4, 6))
    assert not pattern.fits((4, 7))


@pytest.mark.parametrize("text", ["none", "2x2"])
def test_scores_get_the_gradient_that_the_paper_says(text: str) -> None:
    # Sanh et al., eq. 2: the gradient of S_ij is that of the output i times W_ij x_j, also where W_ij is masked
    pattern, generator = Pattern.parse(text), torch.Generator().manual_seed(1)
    layer = nn.Linear(4, 2, bias=False, dtype=torch.float64)
    weight = layer.weight.detach().clone()
    masked = mask(layer, pattern, learned=True)
    kept = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
    masked.mask.copy_(kept)
    inputs = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    toward = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    outputs = layer(inputs)
    assert torch.equal(outputs, inputs @ (weight * kept).T)
    outputs.backward(toward)
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for row, i, j in itertools.product(range(3), range(2), range(4)):
        expected[i, j] += toward[row, i] * weight[i, j] * inputs[row, j]
    assert masked.scores is not None
    torch.testing.assert_close(masked.scores.grad, pattern.gather(expected))
    torch.testing.assert_close(layer.get_parameter("parametrizations.weight.original").grad, (toward.T @ inputs) * kept)


def test_without_scores_the_gradient_is_exact() -> None:
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    masked = Masked(weight, Pattern())
    masked.mask.copy_(torch.rand(3, 4) > 0.5)
    assert torch.autograd.gradcheck(masked, (weight,))


@pytest.mark.parametrize("family", LIKE_BERT)
def test_the_matrices_are_all_of_the_encoder_and_word_embeddings_when_asked(family: str) -> None:
    model = tiny_model(family)
    found = matrices(model)
    inner = {
        name for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f".{FAMILIES[family].stack}." in name
    }  # fmt: skip
    assert set(found) == inner
    assert len(found) == 24
    extra = set(matrices(model, embeddings=True)) - set(found)
    assert [name.rpartition(".")[2] for name in extra] == ["word_embeddings"]


@pytest.mark.parametrize("family", LIKE_BERT)
def test_zeros_are_written_said_held_and_gone_back_on_by_nothing(family: str, tmp_path: Path) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    kept = torch.rand(16, 16, generator=torch.Generator().manual_seed(3)) > 0.5
    name, module = next(iter(matrices(model).items()))
    mask(module, Pattern()).mask.copy_(kept)
    with torch.no_grad():
        expected = observe(model, batch).logits
    settle(model)
    assert not list(masked_modules(model))
    save_model(model, tiny_tokenizer(family), tmp_path)

    loaded = load_model(tmp_path)
    assert type(loaded) is type(tiny_model(family))  # an ordinary model, zeros and all
    with torch.no_grad():
        assert torch.equal(observe(loaded, batch).logits, expected)
    hold_zeros(loaded)
    optimizer = torch.optim.AdamW(loaded.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        observe(loaded, batch).logits.sum().backward()
        optimizer.step()
    settle(loaded)
    weight = loaded.get_parameter(f"{name}.weight")
    assert torch.equal(weight != 0, kept)
    assert not torch.equal(weight, model.get_parameter(f"{name}.weight"))


def test_a_model_that_was_not_pruned_is_left_alone() -> None:
    model = tiny_model()
    with torch.no_grad():
        next(iter(matrices(model).values())).weight[0, 0] = 0
    hold_zeros(model)
    assert not list(masked_modules(model))
    settle(model)
    assert not hasattr(model.config, "sparse_weights")
