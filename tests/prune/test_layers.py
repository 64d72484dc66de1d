"""Every other layer: the paper's rule where it says how many leave, the wanted number everywhere."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from compress.families.forms.uneven import shrink
from compress.families.skipping import observe_without
from compress.models.loading import load_model, save_model
from compress.models.outputs import observe
from compress.prune.layers import PruneLayers, Selection, every_other
from tests.conftest import EVERY_FAMILY, tiny_batch, tiny_model, tiny_tokenizer

DIVIDED = [(layers, parts) for layers in range(2, 25) for parts in range(2, layers + 1) if layers % parts == 0]


@pytest.mark.parametrize(("layers", "parts"), DIVIDED)
def test_it_is_the_papers_rule_where_one_over_the_share_divides_the_depth(layers: int, parts: int) -> None:
    share = Fraction(1, parts)
    dropped = {depth for depth in range(1, layers + 1) if depth % math.floor(1 / share) == 0}
    assert len(dropped) == share * layers  # there the rule removes the share that it names
    kept = every_other(layers, layers - len(dropped))
    assert [place + 1 for place in kept] == [depth for depth in range(1, layers + 1) if depth not in dropped]


@pytest.mark.parametrize("layers", range(1, 25))
def test_the_wanted_number_is_left_for_every_depth_and_what_leaves_is_spread_evenly(layers: int) -> None:
    for remaining in range(1, layers + 1):
        kept = every_other(layers, remaining)
        assert len(kept) == remaining
        assert kept == sorted(set(kept) & set(range(layers)))
        dropped = [place for place in range(layers) if place not in kept]
        gaps = [after - before for before, after in pairwise([-1, *dropped])]
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_one_layer_is_always_left() -> None:
    assert len(every_other(6, 0)) == len(every_other(6, -2)) == len(every_other(1, 0)) == 1


@pytest.mark.parametrize(("ratio", "left"), [(0.0, 4), (0.25, 3), (0.5, 2), (0.75, 1), (0.95, 1)])
def test_a_ratio_is_the_share_that_leaves(ratio: float, left: int) -> None:
    stage = PruneLayers(order=Selection.every_other, ratio=ratio)
    assert len(every_other(4, stage.remaining(4, 1.0))) == left


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_a_cut_says_what_the_model_says_with_those_layers_skipped_also_after_reloading(
    family: str, tmp_path: Path
) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    kept = every_other(4, 2)
    assert kept == [0, 2]
    save_model(shrink(model, layers=kept), tiny_tokenizer(family), tmp_path)
    expected = observe_without(model, batch, {2, 4}).logits
    assert torch.equal(observe(load_model(tmp_path), batch).logits, expected)


def test_it_asks_no_rows_and_does_not_depend_on_them() -> None:
    stage = PruneLayers(order=Selection.every_other, ratio=0.5)
    keep, found = stage.kept(None, tiny_model(), None, 2)  # type: ignore[arg-type]
    assert (keep, found) == ([[0, 2]], {})
    assert stage.chosen_by(None) == "every_other"  # type: ignore[arg-type]
