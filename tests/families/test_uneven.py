"""Pruned models: the same numbers from smaller matrices, for every family, after a reload in another process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForTokenClassification, PreTrainedModel

from compress.families.forms.uneven import kept_heads, neurons, shrink
from compress.models.attention import gated
from compress.models.loading import load_model, load_tokenizer, quiet, save_model
from compress.models.outputs import observe, parameters
from compress.models.quantities import HIDDEN, SCORES
from compress.models.registration import register_auto
from compress.prune.width import narrow
from tests.conftest import CONFIGS, EVERY_FAMILY, FAMILY_NAMES, tiny_batch, tiny_model, tiny_tokenizer
from tests.fresh import run_fresh

KEEP = [[0, 2], [1], [0, 1, 2, 3], [3]]


def gated_logits(model: PreTrainedModel, keep: list[list[int]], batch: dict[str, torch.Tensor]) -> torch.Tensor:
    gates = [torch.zeros(len(batch["input_ids"]), 4) for _ in range(4)]
    for gate, heads in zip(gates, keep, strict=True):
        gate[:, heads] = 1
    with gated(model, gates):
        return observe(model, batch).logits


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_removed_heads_add_nothing_and_the_others_what_they_did(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    smaller = shrink(model, heads=KEEP)
    torch.testing.assert_close(observe(smaller, batch).logits, gated_logits(model, KEEP, batch))
    assert kept_heads(smaller.config) == KEEP
    # a head has 16 inputs, 4 units, three projections, with biases if any, and 4 columns of the output matrix
    assert parameters(model) - parameters(smaller) == 8 * (3 * (16 * 4 + 4 * (family != "modernbert")) + 4 * 16)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_a_pruned_model_reloads_to_the_bit_in_a_fresh_process(family: str, tmp_path: Path) -> None:
    model, batch = shrink(tiny_model(family), heads=KEEP), tiny_batch(family=family)
    save_model(model, tiny_tokenizer(family), tmp_path)
    torch.save({"batch": batch, "logits": observe(model, batch).logits}, tmp_path / "said.pt")
    code = (
        "import sys, torch, compress\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        "said = torch.load(sys.argv[1] + '/said.pt')\n"
        "model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()\n"
        "inputs = {k: v for k, v in said['batch'].items() if k != 'labels'}\n"
        "with torch.no_grad():\n"
        "    assert torch.equal(model(**inputs).logits, said['logits'])\n"
        "assert AutoTokenizer.from_pretrained(sys.argv[1]).is_fast\n"
    )
    run_fresh(code, tmp_path)
    assert not list(tmp_path.glob("*.bin"))


@torch.no_grad()
def test_pruning_twice_names_heads_by_their_first_numbers() -> None:
    model, batch = tiny_model(), tiny_batch()
    once = shrink(model, heads=[[1, 2, 3], [0, 3], [0, 1, 2, 3], [2, 3]])
    twice = shrink(once, heads=[[0, 2], [1], [3], [0]])
    assert kept_heads(twice.config) == [[1, 3], [3], [3], [2]]
    torch.testing.assert_close(observe(twice, batch).logits, gated_logits(model, [[1, 3], [3], [3], [2]], batch))


def test_a_layer_without_heads_is_refused_and_the_model_left_alone() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="at least one head"):
        shrink(model, heads=[[0], [], [1], [2]])
    shrink(model, heads=KEEP)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


UNITS = [[0, 5, 31], list(range(32)), [7], [1, 2, 3, 30]]


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_removed_units_add_nothing_and_the_others_what_they_did(family: str) -> None:
    from compress.families.registry import FAMILIES

    model, batch = tiny_model(family), tiny_batch(family=family)
    smaller = shrink(model, units=UNITS)
    names = FAMILIES[family]
    for layer, units in zip(names.layers(model), UNITS, strict=True):
        gone = [unit for unit in range(32) if unit not in units]
        names.feed_forward_output(layer).weight[:, gone] = 0
    torch.testing.assert_close(observe(smaller, batch).logits, observe(model, batch).logits)
    assert neurons(smaller.config) == [3, 32, 1, 4]
    gone_units = 3 * 32 - 8
    own = 2 * 16 if family == "modernbert" else 16 + 1  # inputs, and of the gate as many; or a bias
    assert parameters(model) - parameters(smaller) == gone_units * (own + 16)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_removed_layers_are_passed_by(family: str) -> None:
    from compress.families.registry import FAMILIES

    model, batch = tiny_model(family), tiny_batch(family=family)
    smaller = shrink(shrink(model, heads=KEEP, units=UNITS), layers=[0, 3])
    assert kept_heads(smaller.config) == [KEEP[0], KEEP[3]]
    assert neurons(smaller.config) == [3, 4]
    both = shrink(model, heads=KEEP, units=UNITS)
    names = FAMILIES[family]
    with names.running(model, [names.layers(both)[i] for i in (0, 3)]):
        torch.testing.assert_close(observe(smaller, batch).logits, observe(model, batch).logits)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_nothing_removed_gives_the_same_logits_to_the_bit(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    assert torch.equal(observe(shrink(model), batch).logits, observe(model, batch).logits)


HEADS = st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True).map(sorted)


@settings(max_examples=15, deadline=None)
@given(
    keep=st.lists(HEADS, min_size=4, max_size=4),
    units=st.lists(st.lists(st.integers(0, 31), min_size=1, unique=True).map(sorted), min_size=4, max_size=4),
    layers=st.lists(st.integers(0, 3), min_size=1, unique=True).map(sorted),
    family=st.sampled_from(FAMILY_NAMES),
)
@torch.no_grad()
def test_any_uneven_shape_reloads_to_the_bit(
    keep: list[list[int]],
    units: list[list[int]],
    layers: list[int],
    family: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, batch = tmp_path_factory.mktemp("pruned"), tiny_batch(family=family)
    model = shrink(tiny_model(family), heads=keep, units=units, layers=layers)
    save_model(model, tiny_tokenizer(family), folder)
    assert load_tokenizer(folder).is_fast
    assert torch.equal(observe(load_model(folder), batch).logits, observe(model, batch).logits)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_observing_changes_nothing(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    implementation, plain = model.config._attn_implementation, observe(model, batch)
    seen = observe(model, batch, HIDDEN, SCORES)
    torch.testing.assert_close(seen.logits, plain.logits)
    assert model.config._attn_implementation == implementation
    assert sorted(seen[HIDDEN]) == [0, 1, 2, 3, 4]
    assert seen[SCORES][1].shape == (3, 4, 9, 9)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    real = batch["attention_mask"].bool()
    for stock, ours in zip(
        model(**inputs, output_hidden_states=True).hidden_states, seen[HIDDEN].values(), strict=True
    ):
        torch.testing.assert_close(ours[real], stock[real])


@pytest.mark.parametrize("family", FAMILY_NAMES)
@torch.no_grad()
def test_scores_are_scaled_products_of_queries_and_keys(family: str) -> None:
    from compress.families.base import linear
    from compress.families.registry import FAMILIES

    model, batch = tiny_model(family), tiny_batch(family=family)
    seen = observe(model, batch, HIDDEN, SCORES)
    layer, names = FAMILIES[family].layers(model)[1], FAMILIES[family]
    query, key = (linear(layer, part.name)(seen[HIDDEN][1]).view(3, 9, 4, 4) for part in names.projections()[:2])
    for b, h, i, j in [(0, 0, 0, 1), (1, 3, 5, 2), (2, 2, 4, 4)]:
        expected = float(query[b, i, h] @ key[b, j, h]) / 4**0.5
        assert seen[SCORES][2][b, h, i, j].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_the_form_of_a_model_with_another_head_is_found_by_that_heads_auto_class(family: str, tmp_path: Path) -> None:
    register_auto(AutoModelForTokenClassification)
    with quiet():
        model = AutoModelForTokenClassification.from_config(CONFIGS[family](num_labels=3)).eval()
    smaller = narrow(shrink(model, heads=KEEP), [0, 1, 2, 5, 7, 11, 15])
    inputs = {name: value for name, value in tiny_batch(family=family).items() if name != "labels"}
    assert smaller(**inputs).logits.shape == (3, 9, 3)
    save_model(smaller, tiny_tokenizer(family), tmp_path)
    with quiet():
        again = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    assert type(again) is type(smaller)
    assert torch.equal(again(**inputs).logits, smaller(**inputs).logits)
    named = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert set(named) == {"AutoConfig", "AutoModelForTokenClassification"}
