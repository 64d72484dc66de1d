"""Each loss against a naive calculation, against its limits, and against numerical gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compress.distill.losses import (
    LOSSES,
    Cosine,
    attention_loss,
    cosine_loss,
    hidden_state_loss,
    logits_mse_loss,
    minilm_attention_loss,
    patient_loss,
    register,
    relation_loss,
)
from compress.tasks.functions import hard_label_loss, soft_target_loss, token_soft_target_loss
from compress.tasks.regression import Regression

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hard_label_loss_is_minus_the_log_probability_of_the_label() -> None:
    logits, labels = numbers(3, 4), torch.tensor([2, 0, 3])
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        expected += -row[label] + math.log(sum(math.exp(x) for x in row))
    assert hard_label_loss(logits, labels).item() == pytest.approx(expected / 3)


def test_loss_of_scores_is_the_squared_error() -> None:
    logits, labels = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([0.0, 4.0, float("nan")])
    assert Regression(0.0, 5.0).mean_loss(logits, labels).item() == pytest.approx((1 + 4) / 2)


def test_hard_label_loss_leaves_out_unlabelled_rows_and_is_zero_without_any() -> None:
    logits = numbers(3, 2)
    known = hard_label_loss(logits[:2], torch.tensor([1, 0]))
    torch.testing.assert_close(hard_label_loss(logits, torch.tensor([1, 0, -100])), known)
    assert hard_label_loss(logits, torch.tensor([-100] * 3)).item() == 0


def test_soft_target_loss_is_t_squared_times_the_divergence_of_softened_rows() -> None:
    student, teacher, temperature = numbers(3, 4), numbers(3, 4, seed=1), 2.5
    expected = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(x / temperature) for x in t]
        q = [math.exp(x / temperature) for x in s]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    result = soft_target_loss(student, teacher, temperature)
    assert result.item() == pytest.approx(temperature**2 * expected / 3)


def test_gradient_size_survives_a_higher_temperature() -> None:
    student, teacher = numbers(8, 3).requires_grad_(), numbers(8, 3, seed=1)
    warm, hot = (torch.autograd.grad(soft_target_loss(student, teacher, t), student)[0].norm() for t in (20.0, 40.0))
    torch.testing.assert_close(hot, warm, rtol=0.02, atol=0.0)


def test_at_a_high_temperature_soft_targets_match_centred_logits() -> None:
    """Hinton et al., section 2.1: the gradient tends to (z - v) / N for zero-mean logits."""
    student, teacher = (x - x.mean(-1, keepdim=True) for x in (numbers(5, 3), numbers(5, 3, seed=1)))
    student.requires_grad_()
    gradient = torch.autograd.grad(soft_target_loss(student, teacher, 1e3), student)[0]
    torch.testing.assert_close(gradient * 5, (student - teacher).detach() / 3, rtol=1e-2, atol=1e-3)


def test_logits_mse_loss_averages_over_rows_and_outputs() -> None:
    student, teacher = numbers(3, 4), numbers(3, 4, seed=1)
    expected = sum((a - b) ** 2 for a, b in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True))
    assert logits_mse_loss(student, teacher).item() == pytest.approx(expected / 12)


def test_hidden_state_loss_averages_over_real_positions_and_units() -> None:
    student, teacher = numbers(3, 4, 5), numbers(3, 4, 5, seed=1)
    errors = [
        (student[b, t, u] - teacher[b, t, u]).item() ** 2
        for b in range(3) for t in range(4) if MASK[b, t] for u in range(5)
    ]  # fmt: skip
    assert hidden_state_loss(student, teacher, MASK).item() == pytest.approx(sum(errors) / len(errors))


def test_attention_loss_averages_over_heads_and_real_pairs() -> None:
    student, teacher = numbers(3, 2, 4, 4), numbers(3, 2, 4, 4, seed=1)
    errors = [
        (student[b, h, i, j] - teacher[b, h, i, j]).item() ** 2
        for b in range(3) for h in range(2) for i in range(4) for j in range(4) if MASK[b, i] and MASK[b, j]
    ]  # fmt: skip
    assert attention_loss(student, teacher, MASK).item() == pytest.approx(sum(errors) / len(errors))


def test_cosine_loss_averages_one_minus_the_cosine_over_real_positions() -> None:
    student, teacher = numbers(3, 4, 5), numbers(3, 4, 5, seed=1)
    terms = []
    for b in range(3):
        for t in range(4):
            if MASK[b, t]:
                a, c = student[b, t].tolist(), teacher[b, t].tolist()
                dot = sum(x * y for x, y in zip(a, c, strict=True))
                terms.append(1 - dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in c)))
    assert cosine_loss(student, teacher, MASK).item() == pytest.approx(sum(terms) / len(terms))


def test_cosine_loss_does_not_see_the_size_of_states() -> None:
    student, teacher = numbers(3, 4, 5), numbers(3, 4, 5, seed=1)
    torch.testing.assert_close(cosine_loss(3 * student, teacher, MASK), cosine_loss(student, teacher, MASK))


MASKED = [
    pytest.param(hidden_state_loss, (3, 4, 5), id="hidden"),
    pytest.param(cosine_loss, (3, 4, 5), id="cosine"),
    pytest.param(attention_loss, (3, 2, 4, 4), id="attention"),
]
MaskedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@pytest.mark.parametrize(("loss", "shape"), MASKED)
def test_padding_never_matters(loss: MaskedLoss, shape: tuple[int, ...]) -> None:
    student, teacher = numbers(*shape), numbers(*shape, seed=1)
    before = loss(student, teacher, MASK)
    padded = ~MASK.bool()
    pairs = padded[:, None, :, None] | padded[:, None, None, :]
    spoiled = pairs if len(shape) == 4 else padded[:, :, None]
    for value in (1e6, math.nan):
        torch.testing.assert_close(loss(student.masked_fill(spoiled, value), teacher, MASK), before)


@pytest.mark.parametrize(("loss", "shape"), MASKED)
def test_equal_states_cost_nothing(loss: MaskedLoss, shape: tuple[int, ...]) -> None:
    same = numbers(*shape)
    assert loss(same, same.clone(), MASK).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("loss", "shape"), MASKED)
def test_masked_gradients_are_right(loss: MaskedLoss, shape: tuple[int, ...]) -> None:
    student, teacher = numbers(*shape).requires_grad_(), numbers(*shape, seed=1)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, MASK), student)


def test_gradients_of_losses_on_logits_are_right() -> None:
    student, teacher, labels = numbers(4, 3).requires_grad_(), numbers(4, 3, seed=1), torch.tensor([0, 2, -100, 1])
    assert torch.autograd.gradcheck(lambda s: soft_target_loss(s, teacher, 3.0), student)
    assert torch.autograd.gradcheck(lambda s: logits_mse_loss(s, teacher), student)
    assert torch.autograd.gradcheck(lambda s: hard_label_loss(s, labels), student)


def test_equal_logits_cost_nothing() -> None:
    same = numbers(4, 3)
    assert soft_target_loss(same, same.clone(), 4.0).item() == pytest.approx(0, abs=1e-12)
    assert logits_mse_loss(same, same.clone()).item() == 0


FULL = torch.ones(3, 4)
PAIRED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]] = {
    "soft": (lambda a, b: soft_target_loss(a, b, 2.0), (3, 5)),
    "mse": (logits_mse_loss, (3, 5)),
    "hidden": (lambda a, b: hidden_state_loss(a, b, FULL), (3, 4, 8)),
    "cosine": (lambda a, b: cosine_loss(a, b, FULL), (3, 4, 8)),
    "attention": (lambda a, b: attention_loss(a, b, FULL), (3, 2, 4, 4)),
    "tokens": (lambda a, b: token_soft_target_loss(a, b, FULL, 2.0), (3, 4, 5)),
    "patient": (patient_loss, (2, 3, 8)),
    "minilm": (lambda a, b: minilm_attention_loss(a, b, FULL), (3, 2, 4, 4)),
    "relation": (lambda a, b: relation_loss(a, b, 2, FULL), (3, 4, 8)),
}


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_fp32(name: str, kind: torch.dtype) -> None:
    """Values of fp16 whose squares and products fp16 cannot hold."""
    loss, shape = PAIRED[name]
    student, teacher = ((300 * numbers(*shape, seed=seed)).to(kind).requires_grad_() for seed in (0, 1))
    found = loss(student, teacher)
    expected = loss(student.detach().double(), teacher.detach().double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=1e-3)
    (slope,) = torch.autograd.grad(found, student)
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", PAIRED)
def test_shapes_that_would_be_broadcast_are_refused(name: str) -> None:
    loss, shape = PAIRED[name]
    with pytest.raises(ValueError, match="cannot be compared"):
        loss(numbers(*shape), numbers(1, *shape[1:]))


@pytest.mark.parametrize("name", ["hidden", "cosine", "attention", "tokens", "minilm", "relation"])
def test_without_a_real_position_there_is_no_loss_and_no_gradient(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, shape = PAIRED[name]
    monkeypatch.setitem(globals(), "FULL", torch.zeros(3, 4))
    student = numbers(*shape).requires_grad_()
    found = loss(student, numbers(*shape, seed=1))
    (slope,) = torch.autograd.grad(found, student)
    assert found.item() == 0
    assert not slope.any()


def test_what_stands_in_the_teachers_padding_reaches_no_gradient() -> None:
    student, teacher = (numbers(3, 2, 4, 4, seed=seed) for seed in (0, 1))
    student.requires_grad_()
    (clean,) = torch.autograd.grad(minilm_attention_loss(student, teacher, MASK), student)
    real = MASK.bool()
    pairs = (real[:, None, :, None] & real[:, None, None, :]).expand_as(teacher)
    spoiled = torch.where(pairs, teacher, float("nan"))
    (slope,) = torch.autograd.grad(minilm_attention_loss(student, spoiled, MASK), student)
    torch.testing.assert_close(slope, clean)


def test_a_name_belongs_to_one_loss() -> None:
    with pytest.raises(ValueError, match="'soft' already: SoftTargets"):
        register("soft")(Cosine)
    assert register("cosine")(Cosine) is Cosine  # the same again, as when a module is imported twice
    assert LOSSES["soft"] is not Cosine
