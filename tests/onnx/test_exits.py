"""Graphs with branches: they stop where the model does, also in int8, and nothing in them goes uncounted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compress.families.forms.exiting import ENTROPY, PATIENCE, ExitRule, set_rule
from compress.onnx.exits import answer, branched, left
from compress.onnx.graph import unbranched
from compress.onnx.products import matrix_products
from compress.onnx.storage import all_nodes, all_weights
from compress.quantize.int8 import DynamicInt8
from compress.runtimes.onnxruntime import inference_session
from tests.conftest import tiny_batch
from tests.families.test_exiting import with_exits

NAMES = ["input_ids", "attention_mask", "token_type_ids"]
RULES = [
    ExitRule(rule=PATIENCE, threshold=2),
    pytest.param(ExitRule(rule=ENTROPY, threshold=0.55), marks=pytest.mark.slow),
    pytest.param(ExitRule(rule=PATIENCE, threshold=1, tolerance=0.5), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@torch.no_grad()
def test_a_graph_leaves_where_the_model_does(rule: ExitRule) -> None:
    model = with_exits()
    set_rule(model, rule)
    flat = unbranched(model, NAMES)
    del flat.graph.value_info[:]
    batch = {name: tiny_batch(8, 17)[name] for name in NAMES}
    rows = [{name: tiny_batch(1, 9, seed=seed)[name] for name in NAMES} for seed in range(5)]
    graph = branched(flat)
    session = inference_session(graph, 1)
    for inputs in (batch, *rows):
        (logits,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        torch.testing.assert_close(torch.from_numpy(logits), model(**inputs).logits, atol=1e-5, rtol=1e-4)
    check_parts(flat, graph)
    check_int8(flat, rows)


def check_parts(flat: Any, graph: Any) -> None:
    """Every node and weight is there once; what is behind an exit is in its branch."""
    nodes = [node for node in all_nodes(graph) if node.op_type != "If" and not node.name.startswith("exit_")]
    assert sorted(node.name for node in nodes) == sorted(node.name for node in flat.graph.node)
    weights = [weight.name for weight in all_weights(graph)]
    assert sorted(weights) == sorted(weight.name for weight in flat.graph.initializer)
    assert sum(node.op_type == "If" for node in all_nodes(graph)) == 3
    assert not any("layer.1." in weight.name for weight in graph.graph.initializer)
    products = matrix_products(graph.graph)
    assert sorted((p.part, p.name) for p in products) == sorted((p.part, p.name) for p in matrix_products(flat.graph))


def check_int8(flat: Any, rows: list[dict[str, torch.Tensor]]) -> None:
    """The graph in int8 gives, row by row, what the whole one says at the exit where all have left."""
    quantized = DynamicInt8().quantized(flat)
    whole, stopping = inference_session(quantized, 1), inference_session(branched(quantized), 1)
    names = [output.name for output in whole.get_outputs()]
    stops = set()
    for row in rows:
        inputs = {name: value.numpy() for name, value in row.items()}
        outputs = dict(zip(names, whole.run(None, inputs), strict=True))
        stop = next((number for number in range(1, 4) if outputs[left(number)]), 4)
        expected = outputs[answer(stop)] if stop < 4 else outputs["last_logits"]
        np.testing.assert_allclose(stopping.run(None, inputs)[0], expected, atol=1e-4)
        stops.add(stop)
    assert len(stops) > 1
    products = matrix_products(branched(quantized).graph)
    assert {product.part for product in products if product.int8} >= {f"layer {n} ffn" for n in range(1, 5)}
