"""Exported graphs in other sizes, against models that are really cut."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from compress.errors import ModelError
from compress.families.forms.uneven import shrink
from compress.families.registry import family_of
from compress.models.outputs import INPUTS, observe
from compress.onnx.sizes import resized
from compress.runtimes.onnxruntime import inference_session
from tests.conftest import EVERY_FAMILY, Graphs, tiny_batch, tiny_model


@pytest.mark.parametrize("family", [family for family in EVERY_FAMILY if "deberta" not in str(family)])
@torch.no_grad()
def test_a_resized_graph_says_what_the_pruned_model_says(family: str, graphs: Graphs) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    graph = onnx.load(graphs(family))
    whole = graph.SerializeToString()
    feed = {name: batch[name].numpy() for name in INPUTS if name in batch}
    for heads, units, layers in ((4, 32, 4), (1, 7, 4), (3, 32, 2), (2, 1, 1)):
        data = resized(graph, model.config, heads=heads, units=units, layers=layers)
        found = inference_session(data, 1).run(["logits"], feed)[0]
        smaller = shrink(
            model, heads=[list(range(heads))] * 4, units=[list(range(units))] * 4, layers=list(range(4 - layers, 4))
        )
        np.testing.assert_allclose(found, observe(smaller, batch).logits.numpy(), atol=1e-5)
        products = [node for node in data.graph.node if node.op_type == "MatMul"]
        embedded = family in ("electra", "albert")  # a projection of the embeddings
        each = len(family_of(model.config).matrix_names()) + 2  # of a layer: those with weights, and attention's own
        assert len(products) == each * layers + embedded  # the other layers are gone, not idle
    larger = inference_session(resized(graph, model.config, heads=6, units=50, layers=4), 1).run(["logits"], feed)[0]
    assert np.isfinite(larger).all()
    assert graph.SerializeToString() == whole


def test_a_graph_of_another_model_is_refused(graphs: Graphs) -> None:
    with pytest.raises(ModelError, match="multiplies 0 times by the weight of"):
        resized(onnx.load(graphs("distilbert")), tiny_model("bert").config, heads=1, units=1, layers=1)
