"""The objective: which tensors meet which."""

from __future__ import annotations

import pytest
import torch

from compress.distill.losses import AttentionScores, Cosine, Embeddings, HiddenStates, attention_loss, cosine_loss
from compress.distill.objective import Distillation
from compress.distill.stage import Distill
from compress.distill.teacher_outputs import FromModel
from compress.families.forms.uneven import shrink
from compress.known import Known
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, SCORES
from compress.student.bert import Bert
from tests.conftest import tiny_batch, tiny_model

ALL = {HIDDEN: (0, 1, 2, 3, 4), SCORES: (1, 2, 3, 4)}


@torch.no_grad()
def test_a_pruned_student_is_compared_with_the_heads_it_keeps_also_when_layers_share_a_teacher_layer() -> None:
    teacher, batch = tiny_model(), tiny_batch()
    keep = [[0, 1], [0, 2, 3]]
    student = shrink(Bert(layers=2, layer_map=[2, 2]).build(teacher), heads=keep)
    layers = ((1, 2), (2, 2))
    objective = Distillation(student, {"a": AttentionScores()}, FromModel(teacher, ALL), teacher.config, layers)
    _, parts = objective(batch, 0.0)
    ours, theirs = observe(student, batch, SCORES)[SCORES], observe(teacher, batch, SCORES)[SCORES]
    mask = batch["attention_mask"]
    expected = sum(attention_loss(ours[s], theirs[2][:, keep[s - 1]], mask) for s in (1, 2))
    torch.testing.assert_close(parts["a"], expected)


@torch.no_grad()
def test_a_pruned_teacher_can_teach_the_heads_it_has() -> None:
    teacher, batch = shrink(tiny_model(), heads=[[0, 1, 3], [1, 2], [0, 3], [2]]), tiny_batch()
    student = Bert(layers=2, layer_map=[2, 4]).build(teacher)
    losses = {"a": AttentionScores(), "h": HiddenStates()}
    objective = Distillation(student, losses, FromModel(teacher, ALL), teacher.config, ((1, 2), (2, 4)))
    loss, _ = objective(batch, 0.0)
    assert torch.isfinite(loss)
    assert student.config.kept_heads == [[1, 2], [2]]
    fewer = shrink(student, heads=[[1], [0]])
    assert not list(Distill(losses=losses).faults(Known(student=fewer.config, teacher=teacher.config)))


def test_a_narrow_student_is_projected_to_the_teachers_width_and_the_projection_learns() -> None:
    teacher, batch = tiny_model(), tiny_batch()
    student = Bert(layers=2, hidden_size=8, heads=2).build(teacher)
    losses = {"h": HiddenStates(), "e": Embeddings(), "c": Cosine()}
    objective = Distillation(student, losses, FromModel(teacher, ALL), teacher.config, ((1, 2), (2, 4)))
    loss, _ = objective(batch, 0.0)
    loss.backward()
    assert {name: p.weight.shape for name, p in objective.projections.items()} == {
        "states": (16, 8),
        "embeddings": (16, 8),
    }
    assert all(float(p.weight.grad.norm()) > 0 for p in objective.projections.values())


def test_weights_move_with_training() -> None:
    from compress.distill.losses import HardLabels
    from compress.distill.schedules import Schedule

    falling = HardLabels(weight=1.0, weight_end=0.0, weight_schedule=Schedule.linear)
    assert [falling.weight_at(p) for p in (0, 0.25, 1)] == pytest.approx([1, 0.75, 0])
    stepping = HardLabels(weight=0.2, weight_end=0.8, weight_schedule=Schedule.step, step_at=0.5)
    assert [stepping.weight_at(p) for p in (0, 0.49, 0.5, 1)] == [0.2, 0.2, 0.8, 0.8]
    assert HardLabels(weight=0.3).weight_at(0.9) == 0.3


@torch.no_grad()
def test_cosine_compares_the_last_states_as_distilbert_or_all_that_are_mapped() -> None:
    teacher, batch, pairs = tiny_model(), tiny_batch(), ((1, 2), (2, 4))
    student = Bert(layers=2).build(teacher)
    losses = {"last": Cosine(), "mapped": Cosine(mapped=True)}
    objective = Distillation(student, losses, FromModel(teacher, ALL), teacher.config, pairs).eval()
    _, parts = objective(batch, 0.0)
    ours, theirs = observe(student, batch, HIDDEN)[HIDDEN], observe(teacher, batch, HIDDEN)[HIDDEN]
    first, last = (cosine_loss(ours[s], theirs[t], batch["attention_mask"]) for s, t in pairs)
    torch.testing.assert_close(parts["last"], last)
    torch.testing.assert_close(parts["mapped"], (first + last) / 2)
    assert Cosine().pairs(((1, 2),), (2, 4)) == ((2, 4),)
