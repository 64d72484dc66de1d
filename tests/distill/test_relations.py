"""Losses on [CLS] states, attention distributions and relations, against loops over positions and heads."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compress.distill.losses import (
    AttentionTransfer,
    Loss,
    MiniLM,
    Patient,
    Relations,
    minilm_attention_loss,
    patient_loss,
    relation_loss,
)
from compress.distill.losses.relations import relation_heads
from compress.distill.objective import Distillation
from compress.distill.stage import Distill
from compress.distill.teacher_outputs import FromModel
from compress.families.forms.uneven import shrink
from compress.known import Known
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, KEYS, QUERIES, RELATIONS, SCORES, VALUES
from compress.student.bert import Bert
from compress.tasks.functions import soft_target_loss, token_soft_target_loss
from tests.conftest import LIKE_BERT, tiny_batch, tiny_model

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
EVERYTHING = {HIDDEN: (0, 1, 2, 3, 4), SCORES: (1, 2, 3, 4), **dict.fromkeys(RELATIONS, (1, 2, 3, 4))}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention(seed: int) -> Tensor:
    return numbers(*MASK.shape, seed=seed)[:, None, None, :] + numbers(len(MASK), 2, 4, 4, seed=seed + 7)


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def test_patient_loss_is_the_squared_error_of_normalised_states() -> None:
    student, teacher = numbers(2, 3, 4), numbers(2, 3, 4, seed=1)
    total = 0.0
    for layer in range(2):
        for row in range(3):
            s, t = student[layer, row].tolist(), teacher[layer, row].tolist()
            long_s, long_t = (math.sqrt(sum(x * x for x in state)) for state in (s, t))
            total += sum((a / long_s - b / long_t) ** 2 for a, b in zip(s, t, strict=True))
    assert patient_loss(student, teacher).item() == pytest.approx(total / (2 * 3 * 4))


def test_patient_loss_looks_at_directions_only() -> None:
    states = numbers(2, 3, 4)
    assert patient_loss(states * 7, states).item() == pytest.approx(0, abs=1e-12)


def test_minilm_attention_loss_is_the_divergence_of_each_real_query_and_head() -> None:
    student, teacher = attention(0), attention(1)
    total, count = 0.0, 0
    for row in range(3):
        real = int(MASK[row].sum())
        for query in range(real):
            for head in range(2):
                p, q = (softmax(x[row, head, query, :real].tolist()) for x in (teacher, student))
                total, count = total + divergence(p, q), count + 1
    assert minilm_attention_loss(student, teacher, MASK).item() == pytest.approx(total / count)


@pytest.mark.parametrize(("ours", "theirs", "heads"), [(6, 6, 2), (4, 12, 2), (12, 6, 3), (8, 8, 8), (5, 7, 1)])
def test_relation_loss_is_the_divergence_of_scaled_products(ours: int, theirs: int, heads: int) -> None:
    student, teacher = numbers(3, 4, ours), numbers(3, 4, theirs, seed=1)

    def relation(states: Tensor, row: int, head: int, query: int, real: int) -> list[float]:
        size = states.shape[-1] // heads
        part = states[row, :, head * size : (head + 1) * size].tolist()
        return softmax([sum(a * b for a, b in zip(part[query], part[k], strict=True)) / size**0.5 for k in range(real)])

    total, count = 0.0, 0
    for row in range(3):
        real = int(MASK[row].sum())
        for query in range(real):
            for head in range(heads):
                p, q = (relation(states, row, head, query, real) for states in (teacher, student))
                total, count = total + divergence(p, q), count + 1
    assert relation_loss(student, teacher, heads, MASK).item() == pytest.approx(total / count)


@pytest.mark.parametrize("heads", [0, 3, 5])
def test_widths_that_cannot_be_cut_are_refused(heads: int) -> None:
    with pytest.raises(ValueError, match=f"{heads} relation heads"):
        relation_loss(numbers(1, 2, 4), numbers(1, 2, 8), heads, torch.ones(1, 2))


def test_token_soft_targets_are_soft_targets_of_every_real_token() -> None:
    student, teacher = numbers(3, 4, 5), numbers(3, 4, 5, seed=1)
    terms = [
        soft_target_loss(student[row, place][None], teacher[row, place][None], 3.0)
        for row in range(3)
        for place in range(4)
        if MASK[row, place]
    ]
    torch.testing.assert_close(token_soft_target_loss(student, teacher, MASK, 3.0), torch.stack(terms).mean())


Function = Callable[[Tensor, Tensor], Tensor]
CASES: dict[str, tuple[Function, Tensor, Tensor]] = {
    "patient": (patient_loss, numbers(2, 3, 4), numbers(2, 3, 4, seed=1)),
    "attention": (lambda s, t: minilm_attention_loss(s, t, MASK), numbers(3, 2, 4, 4), attention(1)),
    "relation": (lambda s, t: relation_loss(s, t, 2, MASK), numbers(3, 4, 6), numbers(3, 4, 4, seed=1)),
    "tokens": (lambda s, t: token_soft_target_loss(s, t, MASK, 2.0), numbers(3, 4, 5), numbers(3, 4, 5, seed=1)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_small_steps(name: str) -> None:
    function, student, teacher = CASES[name]
    assert torch.autograd.gradcheck(lambda s: function(s, teacher), student.clone().requires_grad_())


@pytest.mark.parametrize("name", ["relation", "tokens"])
def test_padding_never_matters_and_gives_no_gradient(name: str) -> None:
    function, student, teacher = CASES[name]
    padding = ~MASK.bool()[:, :, None]
    wild = torch.where(padding, torch.full_like(student, 1e30), student).requires_grad_()
    loss = function(wild, torch.where(padding, torch.full_like(teacher, -1e30), teacher))
    torch.testing.assert_close(loss, function(student, teacher))
    (gradient,) = torch.autograd.grad(loss, wild)
    assert bool(gradient.isfinite().all())
    assert not bool(gradient[padding.expand_as(gradient)].any())


@pytest.mark.parametrize("far", [200.0, 2e4])
def test_attention_on_other_tokens_than_the_teachers_is_corrected(far: float) -> None:
    """One-hot attention: the probability of the right token is too small for a number, its logarithm is not."""
    student, teacher = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    student[..., 0], teacher[..., 1] = far, far
    student.requires_grad_()
    loss = minilm_attention_loss(student, teacher, torch.ones(1, 2))
    (slope,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx(far)
    torch.testing.assert_close(slope, torch.tensor([[[[0.5, -0.5]] * 2]]))  # q - p, a mean over two queries


@pytest.mark.parametrize(
    ("student", "teacher", "wanted", "heads"),
    [
        (768, 768, None, 48), (384, 768, None, 48), (384, 1024, None, 64), (1024, 1024, None, 64),
        (312, 768, None, 24),  # TinyBERT's four layers: 48 do not divide them
        (16, 16, None, 16), (96, 64, None, 32), (384, 384, 12, 12), (288, 384, 64, 48),
    ],
)  # fmt: skip
def test_relation_heads_are_the_papers_or_the_nearest_that_divide_both_widths(
    student: int, teacher: int, wanted: int | None, heads: int
) -> None:
    assert relation_heads(student, teacher, wanted)[0] == heads


def test_relation_heads_are_reported_with_the_reason() -> None:
    teacher = tiny_model().config
    student = Bert(layers=2, hidden_size=6, heads=3).config(teacher)
    assert list(Relations().notes(student, teacher, ((2, 4),))) == [
        "relations are compared by 2 relation heads; 48 do not divide both widths, 6 and 16"
    ]
    assert list(Relations(relation_heads=2).notes(student, teacher, ((2, 4),))) == [
        "relations are compared by 2 relation heads"
    ]


def test_equal_inputs_have_no_loss() -> None:
    states, scores = numbers(3, 4, 6), attention(2)
    assert patient_loss(states, states).item() == 0
    assert relation_loss(states, states, 3, MASK).item() == pytest.approx(0, abs=1e-12)
    assert minilm_attention_loss(scores, scores, MASK).item() == pytest.approx(0, abs=1e-12)
    assert token_soft_target_loss(states, states, MASK, 4.0).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("family", LIKE_BERT)
@torch.no_grad()
def test_queries_keys_and_values_are_those_of_the_layer(family: str) -> None:
    from compress.families.base import linear
    from compress.families.registry import FAMILIES

    model, batch = shrink(tiny_model(family), heads=[[0, 1], [3], [0, 1, 2, 3], [1, 2]]), tiny_batch(family=family)
    seen = observe(model, batch, HIDDEN, *RELATIONS)
    names = FAMILIES[family]
    for index, layer in enumerate(names.layers(model), start=1):
        states = seen[HIDDEN][index - 1]
        query, key, value = (linear(layer, part.name) for part in names.projections())
        torch.testing.assert_close(seen[QUERIES][index], query(states))
        torch.testing.assert_close(seen[KEYS][index], key(states))
        torch.testing.assert_close(seen[VALUES][index], value(states))


def objective(
    student: torch.nn.Module, teacher: torch.nn.Module, loss: Loss, layers: tuple[tuple[int, int], ...]
) -> Tensor:
    batch = tiny_batch()
    source = FromModel(teacher, EVERYTHING)  # type: ignore[arg-type]
    whole = Distillation(student, {"x": loss}, source, teacher.config, layers)  # type: ignore[arg-type]
    value: Tensor = whole(batch, 0.0)[1]["x"]
    return value


@torch.no_grad()
def test_each_loss_compares_the_layers_that_its_paper_compares() -> None:
    teacher, batch = tiny_model(), tiny_batch()
    student = Bert(layers=2, layer_map=[1, 3]).build(teacher)
    layers = ((1, 1), (2, 3))
    ours = observe(student, batch, HIDDEN, SCORES, *RELATIONS)
    theirs = observe(teacher, batch, HIDDEN, SCORES, *RELATIONS)
    mask = batch["attention_mask"]

    first = patient_loss(ours[HIDDEN][1][None, :, 0], theirs[HIDDEN][1][None, :, 0])
    torch.testing.assert_close(objective(student, teacher, Patient(), layers), first)
    transfers = [minilm_attention_loss(ours[SCORES][s], theirs[SCORES][t], mask) for s, t in layers]
    torch.testing.assert_close(objective(student, teacher, AttentionTransfer(), layers), sum(transfers))
    last = minilm_attention_loss(ours[SCORES][2], theirs[SCORES][4], mask)
    last = last + relation_loss(ours[VALUES][2], theirs[VALUES][4], 4, mask)
    torch.testing.assert_close(objective(student, teacher, MiniLM(), layers), last)
    parts = [(ours[part][2], theirs[part][3]) for part in RELATIONS]
    chosen = sum(relation_loss(s, t, 8, mask) for s, t in parts)
    torch.testing.assert_close(
        objective(student, teacher, Relations(teacher_layer=3, relation_heads=8), layers), chosen
    )


@torch.no_grad()
def test_pruned_and_narrow_students_are_compared_with_what_they_have() -> None:
    teacher, batch = tiny_model(), tiny_batch()
    mask = batch["attention_mask"]
    fewer = shrink(Bert(layers=2, layer_map=[2, 4]).build(teacher), heads=[[0, 1], [1, 3]])
    ours, theirs = (
        observe(fewer, batch, SCORES, *RELATIONS),
        observe(teacher, batch, SCORES, *RELATIONS),
    )
    scores = ours[SCORES][2], theirs[SCORES][4][:, [1, 3]]
    values = torch.cat([theirs[VALUES][4][..., 4:8], theirs[VALUES][4][..., 12:16]], -1)
    expected = minilm_attention_loss(*scores, mask) + relation_loss(ours[VALUES][2], values, 2, mask)
    torch.testing.assert_close(objective(fewer, teacher, MiniLM(), ((1, 2), (2, 4))), expected)
    narrow = Bert(layers=2, hidden_size=6, heads=3).build(teacher)  # 6 and 16 units share two relation heads
    ours = observe(narrow, batch, *RELATIONS)
    sides = [(ours[part][2], theirs[part][4]) for part in RELATIONS]
    expected = sum(relation_loss(s, t, 2, mask) for s, t in sides)
    torch.testing.assert_close(objective(narrow, teacher, Relations(), ((1, 2), (2, 4))), expected)


def test_a_narrow_student_learns_patience_through_a_projection() -> None:
    teacher = tiny_model()
    narrow = Bert(layers=2, hidden_size=8, heads=2).build(teacher)
    loss = objective(narrow, teacher, Patient(), ((1, 2), (2, 4)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("loss", "student", "setting"),
    [
        (Patient(), Bert(layers=1), "losses.x"),
        (MiniLM(), Bert(heads=2), "losses.x"),
        (AttentionTransfer(), Bert(heads=2), "losses.x"),
        (Relations(teacher_layer=5), Bert(), "losses.x.teacher_layer"),
        (Relations(relation_heads=5), Bert(), "losses.x.relation_heads"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_work(loss: Loss, student: Bert, setting: str) -> None:
    teacher = tiny_model().config
    faults = Distill(losses={"x": loss}).faults(Known(student=student.config(teacher), teacher=teacher))
    assert [fault.setting for fault in faults] == [setting]
