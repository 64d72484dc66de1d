"""What ONNX Runtime fuses in an unpruned student it fuses in a pruned one, whatever its layers' shapes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from transformers import PreTrainedModel

from compress.models.onnx_folder import onnx_session
from compress.models.onnx_graph import input_names, write_onnx
from compress.models.uneven import shrink
from compress.prune.width import narrow
from tests.conftest import FAMILY_NAMES, tiny_model, tiny_tokenizer

HEADS = [[0, 2], [1], [0, 1, 2, 3], [3]]
UNITS = [[0, 5, 31], list(range(31)), [7], [1, 2, 3, 30]]


def optimized(model: PreTrainedModel, family: str, folder: Path) -> Counter[str]:
    """Return how many nodes of each type are left when ONNX Runtime has optimized the exported graph."""
    write_onnx(model, input_names(tiny_tokenizer(family)), folder / "model.onnx")
    onnx_session(folder / "model.onnx", 1, folder / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_pruned_student_is_fused_as_an_unpruned_one(family: str, tmp_path: Path) -> None:
    whole = optimized(tiny_model(family), family, tmp_path)
    fused = whole["SkipLayerNormalization"] + whole["LayerNormalization"]
    assert fused >= 8  # two a layer: something is fused at all
    assert whole["BiasGelu"] + whole["Gelu"] >= 4
    uneven = shrink(tiny_model(family), heads=HEADS, units=UNITS)
    assert optimized(uneven, family, tmp_path) == whole
    assert optimized(narrow(uneven, [0, 1, 2, 5, 7, 11, 15]), family, tmp_path) == whole


def test_layers_that_are_gone_take_their_nodes_with_them(tmp_path: Path) -> None:
    counts = [optimized(shrink(tiny_model(), layers=list(range(left))), "bert", tmp_path).total() for left in (1, 2, 3)]
    steps = {after - before for before, after in pairwise(counts)}
    assert len(steps) == 1
    assert steps.pop() > 8
