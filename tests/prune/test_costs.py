"""Tables: exact where they count, and of the right form where they are measured."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compress.families.forms.uneven import shrink
from compress.models.outputs import parameters
from compress.onnx.graph import input_names
from compress.prune.costs import GONE, Shape, counted, shape_of, widths
from compress.prune.latency_table import measured_costs
from tests.conftest import CONFIGS, EVERY_FAMILY, FAMILY_NAMES, tiny_model, tiny_tokenizer

SIZE = st.one_of(st.just(GONE), st.tuples(st.integers(1, 4), st.sampled_from([8, 16, 24, 32])))


@settings(max_examples=15, deadline=None)
@given(shape=st.tuples(SIZE, SIZE, SIZE, SIZE), family=st.sampled_from(FAMILY_NAMES))
def test_counts_are_those_of_the_pruned_model(shape: Shape, family: str) -> None:
    assume(any(size != GONE for size in shape))
    model = tiny_model(family)
    smaller = shrink(
        model,
        heads=[list(range(heads)) for heads, _ in shape],
        units=[list(range(width)) for _, width in shape],
        layers=[place for place, size in enumerate(shape) if size != GONE],
    )
    assert counted(model, 4, "parameters", 1).of(shape) == parameters(smaller)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_table_of_an_uneven_model_counts_it_too(family: str) -> None:
    model = shrink(tiny_model(family), heads=[[0], [1, 2], [0, 1, 2, 3], [3]], units=[[0], [*range(30)], [7], [1, 2]])
    assert counted(model, 4, "parameters", 1).of(shape_of(model.config)) == parameters(model)


def test_widths_are_even_steps_and_what_the_layers_have() -> None:
    assert widths(CONFIGS["bert"](), 4) == [8, 16, 24, 32]
    uneven = shrink(tiny_model(), units=[[0], [*range(30)], [7], [1, 2]]).config
    assert widths(uneven, 3) == [1, 2, 10, 20, 30]


def test_a_layer_can_become_nothing_or_any_smaller_size() -> None:
    costs = counted(tiny_model(), 2, "parameters", 1)
    assert costs.sizes(2, 32) == [GONE, (1, 16), (1, 32), (2, 16), (2, 32)]
    assert costs.least() == min(costs.of(((heads, width), GONE)) for heads in (1, 2) for width in (16, 32))


def test_measured_times_are_positive_and_never_fall_as_sizes_grow() -> None:
    config = CONFIGS["bert"]()
    costs = measured_costs(config, input_names(tiny_tokenizer()), 12, 1, 4)
    assert [width for width, _ in costs.neurons] == [8, 16, 24, 32]
    assert len(costs.heads) == 4
    assert costs.layer > 0
    assert costs.rest >= 0
    for row in (costs.heads, [added for _, added in costs.neurons]):
        assert row[0] == 0
        assert all(low <= high and math.isfinite(high) for low, high in pairwise(row))
    assert costs.of(shape_of(config)) > costs.least()
