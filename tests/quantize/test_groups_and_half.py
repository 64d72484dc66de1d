"""Weights with a scale a group, and fp16: what runs, what stays in fp32, and that the report says so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compress.data.dataset import Split
from compress.errors import ModelError
from compress.models.tokens import tokenize
from compress.onnx.half import in_half
from compress.quantize.groups import GroupWise
from compress.quantize.half import HalfPrecision, too_wide
from compress.settings import all_faults
from tests.conftest import Graphs, reviews, save_tiny, tiny_tokenizer, write_tsv
from tests.quantize.test_static import tiny
from tests.run.test_recipe import made, report

CANDIDATES = {
    "four": GroupWise(group=16),
    "eight": GroupWise(bits=8, group=16),
    "weights": GroupWise(bits=8, group=16, int8=False),
    "half": HalfPrecision(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("groups")
    for name, count, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 200, 3)):
        write_tsv(made / f"{name}.tsv", reviews(count, seed))
    save_tiny(made / "teacher")
    tiny(made, quantize=CANDIDATES).run()
    return made


def artifacts(folder: Path) -> dict[str, Any]:
    return {artifact["name"]: artifact for artifact in report(folder)["artifacts"]}


def test_products_of_integers_run_where_asked_for_and_the_report_says_where_not(folder: Path) -> None:
    found = artifacts(folder)
    # 12 products of the layers; Q·Kᵀ and P·V, pooler and classifier are not grouped
    assert {name: found[name].get("int8_matmuls") for name in ("four", "eight", "weights")} == {
        "four": [12, 18], "eight": [12, 18], "weights": [0, 18],
    }  # fmt: skip
    assert [found[name]["precision"] for name in CANDIDATES] == ["int4", "int8", "int8", "fp16"]
    assert any("activations are quantized too" in note for note in found["eight"]["notes"])
    assert any("weights only" in note for note in found["weights"]["notes"])
    assert found["four"]["agreement"] >= 0.9
    assert found["eight"]["agreement"] >= 0.98
    assert found["weights"]["max_abs_difference"] < found["four"]["max_abs_difference"]
    assert made(folder)


def test_each_group_has_the_scale_of_its_own_weights(graphs: Graphs) -> None:
    """The integers and scales of one matrix, against 8-bit rounding written out for each group."""
    path = graphs("bert")
    levels = len(logging.getLogger().handlers), logging.getLogger().level
    model = GroupWise(bits=8, group=16).quantized(onnx.load(path), 1)
    assert (len(logging.getLogger().handlers), logging.getLogger().level) == levels
    node = next(node for node in model.graph.node if node.op_type == "MatMulNBits")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    plain = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    weight = plain[node.input[1].partition("_Q8")[0]]  # (inputs, outputs)
    packed, scales = stored[node.input[1]].reshape(weight.shape[1], -1), stored[node.input[2]]
    assert scales.size == weight.size / 16
    ours = (packed.astype(np.float64) - 128) * np.repeat(scales.reshape(weight.shape[1], -1), 16, axis=1)
    for output in range(weight.shape[1]):
        for group in range(weight.shape[0] // 16):
            own = slice(16 * group, 16 * group + 16)
            step = np.abs(weight[own, output]).max() / 128
            np.testing.assert_allclose(ours[output, own], weight[own, output], atol=1.01 * step)


def test_half_precision_says_what_stays_in_fp32(folder: Path) -> None:
    found = artifacts(folder)["half"]
    assert found["agreement"] == 1
    assert found["max_abs_difference"] < 0.02
    assert any("in fp32: 5 LayerNormalization" in note for note in found["notes"])
    held = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(folder / "run/artifacts/half/model.onnx").graph.initializer
    ]
    numbers = {kind: sum(tensor.size for tensor in held if tensor.dtype == kind) for kind in (np.float16, np.float32)}
    assert numbers[np.float16] > 9 * numbers[np.float32]
    assert "int8_matmuls" not in found


def test_a_group_that_the_runtime_does_not_have_is_refused() -> None:
    assert [fault.setting for fault in all_faults(GroupWise(group=48, bits=5))] == ["bits", "group"]


def test_a_logarithm_of_nothing_that_is_never_read_stays_in_fp32_and_infinite_answers_are_refused(
    graphs: Graphs,
) -> None:
    """MPNet computes the logarithm of the distance of each position to every other, and so to itself."""
    model = onnx.load(graphs("mpnet"))
    texts = [text for _, text in reviews(8, 0)]
    tokens = tokenize(Split(tuple(texts)), tiny_tokenizer("mpnet"), 32)
    wide = too_wide(model, tokens, seed=0)
    (logarithm,) = (node for node in model.graph.node if node.op_type == "Log")
    assert logarithm.output[0] in wide
    assert model.graph.output[0].name not in wide
    in_half(model, wide)
    bias = next(part for part in model.graph.initializer if part.name.endswith("classifier.out_proj.bias"))
    bias.CopyFrom(numpy_helper.from_array(np.full(2, np.inf, np.float32), bias.name))
    with pytest.raises(ModelError, match="infinite on training rows: its training diverged"):
        too_wide(model, tokens, seed=0)
