"""What a layer loses alone, against models that are really cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.families.forms.uneven import shrink
from compress.families.registry import family_of
from compress.models.outputs import observe
from compress.prune.costs import GONE, shape_of
from compress.prune.sensitivity import Sensitivity, ranking_of
from tests.conftest import EVERY_FAMILY, tiny_batch, tiny_model

HEADS = [torch.tensor(scores) for scores in ([4.0, 1, 3, 2], [1.0, 2, 3, 4], [2.0, 1, 4, 3], [1.0, 3, 2, 4])]
UNITS = [torch.arange(32.0).roll(5 * layer) for layer in range(4)]
KEPT = [[0, 2, 3, 1], [3, 2, 1, 0], [2, 3, 0, 1], [3, 1, 2, 0]]  # heads, the most important first


def divergence(model: PreTrainedModel, smaller: PreTrainedModel, batches: list[dict[str, Tensor]]) -> float:
    """Return Σ p log(p / q), mean over rows, row by row."""
    total, rows = 0.0, 0
    for batch in batches:
        with torch.no_grad():
            logits = [observe(item, batch).logits.double() for item in (model, smaller)]
        for ours, theirs in zip(*logits, strict=True):
            p, q = (row.exp() / row.exp().sum() for row in (ours, theirs))
            total += sum(float(a * (a / b).log()) for a, b in zip(p, q, strict=True))
            rows += 1
    return total / rows


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_layers_loss_is_the_divergence_of_the_model_with_that_layer_alone_cut(family: str) -> None:
    model = tiny_model(family)
    batches = [tiny_batch(family=family), tiny_batch(rows=2, tokens=5, seed=1, family=family)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = list(family_of(model.config).layers(model))
    sensitivity = Sensitivity(model, batches, ranking_of(HEADS, UNITS))
    lost = sensitivity.by_layer([[GONE, (1, 8), (2, 32), (4, 8), (4, 32)]] * 4)
    every = [list(range(4))] * 4, [list(range(32))] * 4
    for layer in (0, 2, 3):
        for count in (1, 2):
            heads = [KEPT[layer][:count] if place == layer else every[0][place] for place in range(4)]
            expected = divergence(model, shrink(model, heads=[sorted(names) for names in heads]), batches)
            assert lost[layer].heads[count] == pytest.approx(expected, rel=1e-3, abs=1e-7)
        best = [(place + 5 * layer) % 32 for place in range(24, 32)]  # the largest scores, as rolled
        units = [sorted(best) if place == layer else every[1][place] for place in range(4)]
        expected = divergence(model, shrink(model, units=units), batches)
        assert lost[layer].units[8] == pytest.approx(expected, rel=1e-3, abs=1e-7)
        without = shrink(model, layers=[place for place in range(4) if place != layer])
        assert lost[layer].gone == pytest.approx(divergence(model, without, batches), rel=1e-3, abs=1e-7)
        assert lost[layer].heads[4] == lost[layer].units[32] == 0
    assert list(family_of(model.config).layers(model)) == layers
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_model_as_it_is_has_no_distance_and_scores_have_the_squared_error() -> None:
    model = tiny_model(num_labels=1, problem_type="regression")
    batch = tiny_batch() | {"labels": torch.tensor([0.5, 1.0, 2.0])}
    sensitivity = Sensitivity(model, [batch], ranking_of(HEADS, UNITS))
    assert sensitivity.distance(shape_of(model.config)) == pytest.approx(0, abs=1e-10)
    smaller = shrink(model, layers=[0, 1, 3])
    with torch.no_grad():
        expected = ((observe(model, batch).logits - observe(smaller, batch).logits) ** 2).mean()
    found = sensitivity.distance(((4, 32), (4, 32), GONE, (4, 32)))
    assert found == pytest.approx(float(expected), rel=1e-4)
