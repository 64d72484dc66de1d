"""Importance of heads, feed-forward units and layers, against what its definition says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.families.registry import FAMILIES
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN
from compress.prune.criteria import importance_of
from compress.prune.parts import CHANNELS, HEADS, LAYERS, UNITS
from compress.tasks.functions import hard_label_loss
from tests.conftest import EVERY_FAMILY, tiny_batch, tiny_model

Batch = dict[str, Tensor]


def one_row(batch: Batch, row: int) -> Batch:
    return {name: value[row : row + 1] for name, value in batch.items()}


def loss_of(model: nn.Module, batch: Batch) -> float:
    with torch.no_grad():
        return float(hard_label_loss(observe(model, batch).logits.double(), batch["labels"]))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_units_importance_is_the_slope_of_the_loss_when_its_outgoing_weights_are_scaled(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    slopes = importance_of(model, UNITS, [batch], "gradient")
    squares = importance_of(model, UNITS, [batch], "fisher")
    step = 1e-2
    for layer, unit in [(0, 0), (2, 17), (3, 31)]:
        down = FAMILIES[family].feed_forward_output(FAMILIES[family].layers(model)[layer])
        column = down.weight.detach()[:, unit].clone()
        found = []
        for row in range(3):
            losses = []
            for scale in (1 + step, 1 - step):
                with torch.no_grad():
                    down.weight[:, unit] = column * scale
                losses.append(loss_of(model, one_row(batch, row)))
            found.append((losses[0] - losses[1]) / (2 * step))
        with torch.no_grad():
            down.weight[:, unit] = column
        assert slopes[layer][unit].item() == pytest.approx(sum(map(abs, found)) / 3, rel=0.05, abs=2e-4)
        assert squares[layer][unit].item() == pytest.approx(sum(x * x for x in found) / 3, rel=0.1, abs=2e-5)


def test_molchanovs_importance_is_the_squared_slope_of_a_mini_batchs_mean_loss() -> None:
    """By small steps of one head's gate; opposite slopes of two rows cancel out within a batch, and not between two."""
    model, batch = tiny_model(), tiny_batch()
    halves = [{name: value[:2] for name, value in batch.items()}, one_row(batch, 2)]
    found = importance_of(model, HEADS, halves, "molchanov")
    dense, step = model.bert.encoder.layer[1].attention.output.dense, 1e-2
    column = dense.weight.detach()[:, 4:8].clone()
    slopes = []
    for half in halves:
        losses = []
        for scale in (1 + step, 1 - step):
            with torch.no_grad():
                dense.weight[:, 4:8] = column * scale
            losses.append(loss_of(model, half))
        slopes.append((losses[0] - losses[1]) / (2 * step))
    assert found[1][1].item() == pytest.approx(sum(slope**2 for slope in slopes) / 2, rel=0.05, abs=1e-6)
    alone = importance_of(model, HEADS, [one_row(batch, row) for row in range(3)], "molchanov")
    for by_row, fisher in zip(alone, importance_of(model, HEADS, [batch], "fisher"), strict=True):
        torch.testing.assert_close(by_row, fisher)  # a batch of one row is a row


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_activation_is_the_mean_absolute_output_of_a_unit_over_real_tokens(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    importance = importance_of(model, UNITS, [batch], "activation")
    names = FAMILIES[family]
    seen: list[Tensor] = []
    down = names.feed_forward_output(names.layers(model)[1])
    handle = down.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    observe(model, batch)
    handle.remove()
    total, count = 0.0, 0
    for row in range(3):
        for token in range(9):
            if batch["attention_mask"][row, token]:
                total, count = total + abs(seen[0][row, token, 5].item()), count + 1
    assert importance[1][5].item() == pytest.approx(total / count, rel=1e-5)


@torch.no_grad()
def test_magnitudes_are_norms_of_what_belongs_to_a_head_or_unit() -> None:
    model = tiny_model()
    layer = model.bert.encoder.layer[2]
    unit, head = 7, 3
    incoming, outgoing = layer.intermediate.dense.weight[unit], layer.output.dense.weight[:, unit]
    expected = sum(float(x) ** 2 for x in [*incoming, *outgoing]) ** 0.5
    assert importance_of(model, UNITS, [], "magnitude")[2][unit].item() == pytest.approx(expected, rel=1e-5)
    own = slice(head * 4, head * 4 + 4)
    attention = layer.attention.self
    parts = [attention.query.weight[own], attention.key.weight[own], attention.value.weight[own]]
    parts.append(layer.attention.output.dense.weight[:, own])
    expected = sum(float(x) ** 2 for part in parts for x in part.flatten()) ** 0.5
    assert importance_of(model, HEADS, [], "magnitude")[2][head].item() == pytest.approx(expected, rel=1e-5)


def test_the_squared_slope_of_a_head_is_at_least_the_square_of_the_mean_slope() -> None:
    model, batch = tiny_model(), tiny_batch()
    for slopes, squares in zip(
        importance_of(model, HEADS, [batch], "gradient"), importance_of(model, HEADS, [batch], "fisher"), strict=True
    ):
        assert bool((squares >= slopes**2 * 0.999).all())


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_layers_loss_is_that_of_the_model_without_it(family: str) -> None:
    from compress.families.forms.uneven import shrink

    model, batch = tiny_model(family), tiny_batch(family=family)
    losses = importance_of(model, LAYERS, [batch], "loss")[0]
    for layer in range(4):
        without = shrink(model, layers=[i for i in range(4) if i != layer])
        assert losses[layer].item() == pytest.approx(loss_of(without, batch), rel=1e-4)


@torch.no_grad()
def test_block_influence_is_one_minus_the_cosine_of_what_goes_in_and_comes_out() -> None:
    model, batch = tiny_model(), tiny_batch()
    found = importance_of(model, LAYERS, [batch], "activation")[0]
    states = observe(model, batch, HIDDEN)[HIDDEN]
    turns = []
    for row in range(3):
        for token in range(9):
            if batch["attention_mask"][row, token]:
                a, b = states[2][row, token].double(), states[3][row, token].double()
                turns.append(1 - float(a @ b / (a.norm() * b.norm())))
    assert found[2].item() == pytest.approx(sum(turns) / len(turns), rel=1e-4)


def test_a_layers_gate_is_a_mixture_of_input_and_output() -> None:
    model, batch = tiny_model(), tiny_batch()
    slopes = importance_of(model, LAYERS, [batch], "gradient")[0]
    step, layer = 1e-2, model.bert.encoder.layer[1]
    found = []
    for row in range(3):
        losses = []
        for gate in (1 + step, 1 - step):
            handle = layer.register_forward_hook(
                lambda _, given, value, gate=gate: gate * value + (1 - gate) * given[0]
            )
            losses.append(loss_of(model, one_row(batch, row)))
            handle.remove()
        found.append(abs(losses[0] - losses[1]) / (2 * step))
    assert slopes[1].item() == pytest.approx(sum(found) / 3, rel=0.05)


def test_measures_that_are_not_defined_are_refused() -> None:
    model = tiny_model()
    for parts, criterion in [(HEADS, "activation"), (UNITS, "loss"), (LAYERS, "magnitude"), (CHANNELS, "loss")]:
        with pytest.raises(ValueError, match=f"{parts.name} have no importance by {criterion}"):
            importance_of(model, parts, [], criterion)


def test_measuring_leaves_the_model_as_it_was() -> None:
    model, batch = tiny_model().train(), tiny_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    importance_of(model, UNITS, [batch], "fisher")
    importance_of(model, LAYERS, [batch], "gradient")[0]
    importance_of(model, LAYERS, [batch], "loss")
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
