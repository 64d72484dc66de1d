"""Layers left out of a run: the same numbers as without them, and the model as it was afterwards."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from compress.families.forms.uneven import shrink
from compress.families.registry import family_of
from compress.families.skipping import observe_without
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, RELATIONS, SCORES
from tests.conftest import EVERY_FAMILY, FAMILY_NAMES, tiny_batch, tiny_model

ALL = (1, 2, 3, 4)
SUBSETS = [set(chosen) for count in range(1, 5) for chosen in combinations(ALL, count)]


def uneven() -> PreTrainedModel:
    heads = [[0], [1, 2], [0, 1, 3], [2]]
    return shrink(tiny_model(), heads=heads, units=[list(range(width)) for width in (5, 32, 9, 20)])


def models() -> list[tuple[str, PreTrainedModel]]:
    return [(family, tiny_model(family)) for family in FAMILY_NAMES] + [("bert", uneven())]


def by_hand(model: PreTrainedModel, batch: dict[str, Tensor], skipped: Collection[int]) -> list[Tensor]:
    """Return the hidden states 0 … 4 by a loop over the layers that are not skipped."""
    states = [observe(model, batch, HIDDEN)[HIDDEN][0]]
    mask = (1 - batch["attention_mask"][:, None, None, :].float()) * torch.finfo(torch.float32).min
    for number, layer in enumerate(family_of(model.config).layers(model), start=1):
        states.append(states[-1] if number in skipped else layer(states[-1], mask))
    return states


@pytest.mark.parametrize(("family", "model"), models())
@torch.no_grad()
def test_the_logits_are_those_of_the_model_cut_to_the_other_layers_to_the_bit(
    family: str, model: PreTrainedModel
) -> None:
    batch = tiny_batch(family=family)
    for skipped in SUBSETS:
        if len(skipped) < 4:
            cut = shrink(model, layers=[layer - 1 for layer in ALL if layer not in skipped])
            assert torch.equal(observe_without(model, batch, skipped).logits, observe(cut, batch).logits), skipped


@pytest.mark.parametrize(("family", "model"), models())
@torch.no_grad()
def test_the_states_are_those_of_a_loop_over_the_other_layers_and_a_skipped_one_hands_on_what_it_is_given(
    family: str, model: PreTrainedModel
) -> None:
    batch = tiny_batch(family=family)
    real = batch["attention_mask"].bool()
    for skipped in SUBSETS:
        hidden = observe_without(model, batch, skipped, HIDDEN)[HIDDEN]
        assert list(hidden) == [0, 1, 2, 3, 4]
        for layer, expected in enumerate(by_hand(model, batch, skipped)):
            torch.testing.assert_close(hidden[layer][real], expected[real], rtol=1e-4, atol=1e-5)
        assert all(torch.equal(hidden[layer], hidden[layer - 1]) for layer in skipped)


@pytest.mark.parametrize(("family", "model"), models())
@torch.no_grad()
def test_scores_queries_keys_and_values_keep_the_numbers_of_their_layers(family: str, model: PreTrainedModel) -> None:
    batch = tiny_batch(family=family)
    found = observe_without(model, batch, {2, 4}, SCORES, *RELATIONS)
    cut = observe(shrink(model, layers=[0, 2]), batch, SCORES, *RELATIONS)
    for part in (SCORES, *RELATIONS):
        ours, theirs = found[part], cut[part]
        assert list(ours) == [1, 3]
        assert torch.equal(ours[1], theirs[1])
        assert torch.equal(ours[3], theirs[2])


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_nothing_skipped_is_the_model_itself_and_padding_never_matters(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    assert torch.equal(observe_without(model, batch, ()).logits, observe(model, batch).logits)
    longer = {n: functional.pad(v, (0, 5)) if v.dim() == 2 else v for n, v in batch.items()}
    first, second = (observe_without(model, given, {1, 3}).logits for given in (batch, longer))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_skipped_layers_are_not_computed(family: str) -> None:
    model, batch, ran = tiny_model(family), tiny_batch(family=family), []
    for number, layer in enumerate(family_of(model.config).layers(model), start=1):
        inner = next(module for module in layer.modules() if isinstance(module, torch.nn.Linear))
        inner.register_forward_hook(lambda *_, number=number: ran.append(number))
    observe_without(model, batch, {1, 4}, HIDDEN)
    assert list(dict.fromkeys(ran)) == [2, 3]  # DeBERTa reads positions by the same module


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_model_is_left_as_it_was_also_when_a_run_fails(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    observe(model, batch, HIDDEN)  # transformers installs its own hooks at the first call
    before = observe(model, batch).logits
    kept = [(dict(vars(module)), dict(module._forward_hooks)) for module in model.modules()]
    observe_without(model, batch, {1, 3}, HIDDEN, SCORES)
    with pytest.raises(IndexError):
        observe_without(model, batch | {"input_ids": batch["input_ids"] + 1000}, {2})
    assert [(dict(vars(module)), dict(module._forward_hooks)) for module in model.modules()] == kept
    assert torch.equal(observe(model, batch).logits, before)


@torch.no_grad()
def test_a_forward_of_a_layers_own_comes_back() -> None:
    model, batch = tiny_model(), tiny_batch()
    layer = family_of(model.config).layers(model)[1]
    own = layer.forward
    layer.forward = lambda *given, **settings: own(*given, **settings) * 2
    patched, whole = layer.forward, observe(model, batch).logits
    observe_without(model, batch, {2})
    assert layer.forward is patched
    assert torch.equal(observe(model, batch).logits, whole)
