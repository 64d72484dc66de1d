"""Fp32 graphs in fp16: what stays in fp32, what fp16 cannot hold, and that the answers stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from compress.onnx.graph import input_names, write_onnx
from compress.onnx.half import MASKED, float_tensors, half_values, in_half, kept_in_fp32
from tests.conftest import EVERY_FAMILY, Graphs, tiny_batch, tiny_model, tiny_tokenizer


def run(model: Path | Any, batch: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(None, batch)[0]


def inputs(family: str = "bert", **settings: int) -> dict[str, Any]:
    return {name: value.numpy() for name, value in tiny_batch(family=family, **settings).items() if name != "labels"}


@pytest.fixture
def source(graphs: Graphs) -> Path:
    """The graph of a tiny BERT."""
    return graphs("bert")


def types(model: Any) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {field.name: field.type.tensor_type.elem_type for field in (*graph.value_info, *graph.input, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def small(nodes: list[Any], constants: dict[str, Any], width: int) -> Any:
    """Return a graph of float x (rows, width) to y."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name in "xy")
    weights = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_says_nearly_the_same_and_answers_in_fp32(family: str, tmp_path: Path, graphs: Graphs) -> None:
    source, batch = graphs(family), inputs(family)
    onnx.save(in_half(onnx.load(source)), tmp_path / "half.onnx")
    before, after = run(source, batch), run(tmp_path / "half.onnx", batch)
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, before, atol=0.02)
    assert np.abs(after - before).max() > 0  # it is not the same graph
    assert (tmp_path / "half.onnx").stat().st_size < 0.75 * source.stat().st_size


def test_padding_changes_nothing(source: Path, tmp_path: Path) -> None:
    onnx.save(in_half(onnx.load(source)), tmp_path / "half.onnx")
    short = inputs(rows=1, tokens=5)
    padded = {name: np.pad(value, ((0, 0), (0, 20))) for name, value in short.items()}
    np.testing.assert_allclose(run(tmp_path / "half.onnx", padded), run(tmp_path / "half.onnx", short), atol=2e-3)


def test_normalizations_stay_in_fp32_and_matrix_products_do_not(source: Path) -> None:
    model = in_half(onnx.load(source))
    known = types(model)
    kinds = {
        kind: {known[name] for node in model.graph.node if node.op_type == kind for name in node.input}
        for kind in ("LayerNormalization", "MatMul", "Softmax", "Gelu")
    }
    assert kinds == {
        "LayerNormalization": {TensorProto.FLOAT},
        **{kind: {TensorProto.FLOAT16} for kind in ("MatMul", "Softmax", "Gelu")},
    }


def test_states_too_large_to_be_squared_in_fp16_are_normalized_right() -> None:
    generator = np.random.default_rng(0)
    x = 1000 * generator.standard_normal((3, 8)).astype(np.float32)
    scale, bias = generator.standard_normal((2, 8)).astype(np.float32)
    node = helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["y"], epsilon=1e-12)
    centred = x - x.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True)) * scale + bias
    np.testing.assert_allclose(
        run(in_half(small([node], {"scale": scale, "bias": bias}, 8)), {"x": x}), expected, atol=5e-3
    )


def test_a_normalization_written_out_in_parts_keeps_its_variance_in_fp32() -> None:
    """x / sqrt(mean(x^2) + epsilon): neither 1000^2 nor epsilon is there in fp16."""
    nodes = [
        helper.make_node("Pow", ["x", "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "axes"], ["mean"], keepdims=1),
        helper.make_node("Constant", [], ["epsilon"], value_float=1e-9),
        helper.make_node("Add", ["mean", "epsilon"], ["variance"]),
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Reciprocal", ["deviation"], ["factor"]),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    model = small(nodes, {"two": 2.0}, 8)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    x = 1000 * np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    expected = x / np.sqrt((x**2).mean(1, keepdims=True))
    np.testing.assert_allclose(run(in_half(model), {"x": x}), expected, rtol=5e-3)


def test_constants_beyond_fp16_become_masks_that_it_holds_and_small_ones_stay_above_zero() -> None:
    given = np.array([np.finfo(np.float32).min, -np.inf, np.inf, 1e-12, -1e-12, 0, 1.5], np.float32)
    found = half_values(given).astype(np.float64)
    assert found[:3].tolist() == [-MASKED, -MASKED, MASKED]
    assert found[3] > 0 > found[4]
    assert found[5:].tolist() == [0, 1.5]


def in_true_half(model: Any, batch: dict[str, Any]) -> Any:
    """Return what numpy computes, in fp16 where the graph says fp16; ONNX Runtime takes fp32 on some processors."""
    return ReferenceEvaluator(model).run(None, batch)[0]


def with_large_states(folder: Path, factor: float) -> tuple[Path, list[str]]:
    """Return a graph whose feed-forward outputs are so many times too large, and its tensors beyond a tenth of fp16."""
    model = tiny_model()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight *= factor
    path = folder / "large.onnx"
    write_onnx(model, input_names(tiny_tokenizer()), path)
    graph = onnx.load(path)
    names = float_tensors(graph)
    graph.graph.ClearField("output")
    graph.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(names, inputs())
    return path, [name for name, values in zip(names, found, strict=True) if np.abs(values).max() > 6500]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(
    "factor", [pytest.param(3e6, marks=pytest.mark.slow), 3e8]
)  # products leave fp16's range; and weights
def test_values_that_fp16_cannot_hold_stay_in_fp32(factor: float, tmp_path: Path, source: Path) -> None:
    path, wide = with_large_states(tmp_path, factor)
    assert wide
    expected = run(path, inputs())
    naive, careful = in_half(onnx.load(path)), in_half(onnx.load(path), wide)
    if factor == 3e6:
        assert not np.isfinite(in_true_half(naive, inputs())).all()
    np.testing.assert_allclose(in_true_half(careful, inputs()), expected, atol=0.02)
    weights = [tensor for tensor in careful.graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    assert all(np.isfinite(numpy_helper.to_array(tensor)).all() for tensor in weights)
    assert len(list(kept_in_fp32(careful))) > len(list(kept_in_fp32(in_half(onnx.load(source)))))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_integers_of_values_that_fp16_cannot_hold_give_them_back_in_fp32() -> None:
    """x -> integers -> values -> product: wide x keeps the scale, what comes back, and the product in fp32."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["back"]),
        helper.make_node("MatMul", ["back", "weight"], ["y"]),
    ]
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((4, 4)).astype(np.float32) / 1000
    model = small(nodes, {"scale": 2000.0, "weight": weight}, 4)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    x = 2e5 * generator.standard_normal((3, 4)).astype(np.float32)
    expected = run(model, {"x": x})
    assert not np.isfinite(in_true_half(in_half(model), {"x": x})).all()
    np.testing.assert_allclose(in_true_half(in_half(model, ["x"]), {"x": x}), expected, rtol=1e-3)


class _Rows(CalibrationDataReader):
    def __init__(self) -> None:
        self.batches = iter([inputs(seed=seed) for seed in range(4)])

    def get_next(self) -> Any:
        return next(self.batches, None)


@pytest.mark.filterwarnings("ignore")
def test_quantized_weights_stay_int8_along_their_axis_and_give_fp16(source: Path, tmp_path: Path) -> None:
    quantize_static(
        source, tmp_path / "int8.onnx", _Rows(), quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"], activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
    )  # fmt: skip
    before, model = onnx.load(tmp_path / "int8.onnx"), in_half(onnx.load(tmp_path / "int8.onnx"))
    known = types(model)
    back = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert back
    assert [[*node.attribute] for node in back] == [
        [*node.attribute] for node in before.graph.node if node.op_type == "DequantizeLinear"
    ]
    for node in back:
        assert known[node.input[0]] in (TensorProto.INT8, TensorProto.INT32)  # weights and activations, or a bias
        assert known[node.input[1]] == TensorProto.FLOAT16
        assert known[node.output[0]] == TensorProto.FLOAT16
    np.testing.assert_allclose(run(model, inputs()), run(before, inputs()), atol=0.05)


def test_the_graph_it_is_given_stays_as_it_was(source: Path) -> None:
    given = onnx.load(source)
    before = given.SerializeToString(deterministic=True)
    in_half(given)
    assert given.SerializeToString(deterministic=True) == before


def test_old_opsets_and_subgraphs_are_refused() -> None:
    old = small([helper.make_node("Neg", ["x"], ["y"])], {}, 2)
    old.opset_import[0].version = 18
    with pytest.raises(ValueError, match="opset 18; at least 19"):
        in_half(old)
    branch = helper.make_graph([helper.make_node("Neg", ["x"], ["b"])], "b", [], [
        helper.make_tensor_value_info("b", TensorProto.FLOAT, ["rows", 2])
    ])  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    with pytest.raises(ValueError, match="subgraphs"):
        in_half(small(nodes, {}, 2))
