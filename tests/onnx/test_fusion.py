"""What ONNX Runtime fuses in an unpruned student it fuses in a pruned one, whatever its layers' shapes.

And what it would fuse to its loss it leaves alone, in every file that is written for the CPU.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
from transformers import PreTrainedModel

from compress.families.forms.uneven import shrink
from compress.onnx.graph import exported, input_names, write_onnx
from compress.prune.width import narrow
from compress.quantize.groups import GroupWise
from compress.quantize.int8 import DynamicInt8, StaticInt8
from compress.runtimes.onnxruntime import inference_session
from tests.conftest import CUT_EVERYWHERE_NOW, Graphs, reviews, save_tiny, tiny_model, tiny_tokenizer, write_tsv
from tests.quantize.test_static import tiny

HEADS = [[0, 2], [1], [0, 1, 2, 3], [3]]
UNITS = [[0, 5, 31], list(range(31)), [7], [1, 2, 3, 30]]


def optimized(model: PreTrainedModel, family: str, folder: Path) -> Counter[str]:
    """Return how many nodes of each type are left when ONNX Runtime has optimized the exported graph."""
    write_onnx(model, input_names(tiny_tokenizer(family)), folder / "model.onnx")
    return nodes_run(folder / "model.onnx", folder / "optimized.onnx")


def nodes_run(graph: Any, optimized: Path) -> Counter[str]:
    inference_session(graph, 1, optimized=optimized)
    return Counter(node.op_type for node in onnx.load(optimized).graph.node)


@pytest.mark.parametrize("narrowed", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("family", CUT_EVERYWHERE_NOW)
def test_a_pruned_student_is_fused_as_an_unpruned_one(
    family: str, narrowed: bool, tmp_path: Path, graphs: Graphs
) -> None:
    whole = nodes_run(graphs(family), tmp_path / "optimized.onnx")
    assert whole["SkipLayerNormalization"] <= 1  # of RoBERTa's embeddings, whose shapes follow from their tables
    assert whole["FusedMatMul"] >= 4  # one a layer: something is fused at all
    assert whole["BiasGelu"] + whole["Gelu"] + whole["FastGelu"] >= 4
    uneven = shrink(tiny_model(family), heads=HEADS, units=UNITS)
    pruned = narrow(uneven, [0, 1, 2, 5, 7, 11, 15]) if narrowed else uneven
    nodes = optimized(pruned, family, tmp_path)
    assert family == "mpnet" or nodes == whole  # there each layer also takes its own heads' bias of positions
    assert all(nodes[kind] == whole[kind] for kind in ("FusedMatMul", "Gelu", "BiasGelu", "SkipLayerNormalization"))


def test_layers_that_are_gone_take_their_nodes_with_them(tmp_path: Path, graphs: Graphs) -> None:
    first, second = (optimized(shrink(tiny_model(), layers=list(range(left))), "bert", tmp_path) for left in (1, 2))
    whole, layer = nodes_run(graphs("bert"), tmp_path / "optimized.onnx"), second.total() - first.total()
    assert whole.total() - second.total() == 2 * layer
    assert layer > 8


def test_additions_and_normalizations_stay_apart_in_every_file_for_the_cpu(tmp_path: Path) -> None:
    with_shapes = exported(tiny_model(), input_names(tiny_tokenizer()))
    assert nodes_run(with_shapes, tmp_path / "optimized.onnx")["SkipLayerNormalization"] >= 4  # else there is no need
    for name, count, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 60, 3)):
        write_tsv(tmp_path / f"{name}.tsv", reviews(count, seed))
    save_tiny(tmp_path / "teacher")
    quantize = {"dynamic": DynamicInt8(), "static": StaticInt8(rows=20), "groups": GroupWise(group=16)}
    state = tiny(tmp_path, quantize=quantize).run().state
    files = [artifact.folder / "model.onnx" for artifact in state.artifacts if artifact.runtime == "onnxruntime"]
    assert len(files) == 3
    for file in files:
        run = nodes_run(file, tmp_path / "optimized.onnx")
        assert (run["SkipLayerNormalization"], run["LayerNormalization"] >= 4) == (0, True)
