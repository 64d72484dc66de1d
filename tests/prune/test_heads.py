"""Which heads go, and how many."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.models.outputs import observe
from compress.prune.criteria import importance_of
from compress.prune.heads import PruneHeads
from compress.prune.parts import HEADS
from compress.prune.rounds import Scope, choose, normalised
from compress.tasks.functions import hard_label_loss
from tests.conftest import EVERY_FAMILY, tiny_batch, tiny_model


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_importance_is_the_mean_absolute_slope_of_each_rows_loss_in_the_gate(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    importance = importance_of(model, HEADS, [batch], "gradient")
    step = 1e-3
    for layer, head in [(0, 0), (1, 3), (3, 2)]:
        slopes = []
        for row in range(3):
            alone = {name: value[row : row + 1] for name, value in batch.items()}
            losses = []
            for offset in (step, -step):
                gates = [torch.ones(1, 4) for _ in range(4)]
                gates[layer][0, head] += offset
                with torch.no_grad(), HEADS.gated(model, gates):
                    losses.append(hard_label_loss(observe(model, alone).logits.double(), alone["labels"]))
            slopes.append(abs(losses[0] - losses[1]).item() / (2 * step))
        assert importance[layer][head].item() == pytest.approx(sum(slopes) / 3, rel=0.05, abs=2e-4)


def test_importance_does_not_depend_on_how_rows_are_batched_and_leaves_no_gradient() -> None:
    model, batch = tiny_model().train(), tiny_batch()
    rows = [{name: value[row : row + 1] for name, value in batch.items()} for row in range(3)]
    measured = (importance_of(model, HEADS, batches, "gradient") for batches in ([batch], rows))
    for whole, single in zip(*measured, strict=True):
        torch.testing.assert_close(whole, single)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_are_compared_after_dividing_by_their_root_mean_squares() -> None:
    small, large = torch.tensor([1e-3, 5e-4, 1e-4]), torch.tensor([30.0, 1.0, 2.0])
    for scores in normalised([small, large]):
        assert scores.pow(2).mean().item() == pytest.approx(1)
    assert choose([small, large], 4, Scope.all) == [[0, 1, 2], [0]]
    assert choose([small, large], 4, Scope.raw) == [[0], [0, 1, 2]]


def test_parts_of_a_wide_layer_leave_no_earlier_than_those_of_a_narrow_one() -> None:
    """Twice the same importances: by the l2 norm the wide layer would lose all but one before the narrow one any."""
    narrow = torch.tensor([1.0, 0.9])
    wide = narrow.repeat(8)
    kept = choose([narrow, wide], 9, Scope.all)
    assert [len(layer) for layer in kept] == [1, 8]


def test_by_layer_each_keeps_its_share() -> None:
    importance = [torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([0.1, 0.2, 0.3, 0.4])]
    assert choose(importance, 4, Scope.layer) == [[0, 1], [2, 3]]


@given(
    importance=st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4).map(torch.tensor), min_size=1, max_size=5),
    ratio=st.floats(0, 0.999),
    scope=st.sampled_from(Scope),
)
def test_every_layer_keeps_a_head_and_no_head_is_kept_twice(
    importance: list[torch.Tensor], ratio: float, scope: Scope
) -> None:
    total = 4 * len(importance)
    remaining = total - round(ratio * total)
    keep = choose(importance, remaining, scope)
    assert all(heads and len(set(heads)) == len(heads) and max(heads) < 4 for heads in keep)
    if scope is Scope.all:
        assert sum(map(len, keep)) == max(remaining, len(importance))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 3.0, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    assert [fault.setting for fault in PruneHeads(ratio=ratio).faults()] == ["ratio"]
