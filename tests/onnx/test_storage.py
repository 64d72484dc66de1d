"""Files of graphs: they need as little as possible, which is said beside them, and their size has no limit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from compress.data.dataset import Dataset, Split
from compress.export.onnx import Onnx
from compress.export.transformers_js import TransformersJs
from compress.export.triton import Triton
from compress.machine import INT8_DOT_PRODUCT
from compress.models.facts import GraphFacts, read_facts
from compress.models.loading import load_tokenizer, save_model
from compress.models.tokens import tokenize
from compress.onnx import storage
from compress.onnx.needs import needs_of, numbered
from compress.onnx.storage import copy_graph, inferred, save_graph
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.groups import GroupWise
from compress.quantize.half import HalfPrecision
from compress.quantize.int8 import DynamicInt8, StaticInt8, WeightBits
from compress.quantize.symmetric import SymmetricInt8
from compress.run.bench import bench_paths
from compress.run.predict import predict
from compress.runtimes.onnxruntime import graph_session, inference_session
from compress.runtimes.registry import load_session
from compress.runtimes.rows import one_by_one
from compress.tasks.classification import Classification
from tests.conftest import reviews, tiny_model, tiny_tokenizer

SEVEN = {"static": StaticInt8(rows=8, weight_bits=WeightBits.seven), "fp16": HalfPrecision(rows=8)}
EIGHT = {
    "dynamic": DynamicInt8(weight_bits=WeightBits.eight), "groups": GroupWise(group=16),
    "symmetric": SymmetricInt8(rows=8),
}  # fmt: skip
TEXTS = ("good film", "the plot was so very bad and the actor is dull " * 9)


def made(folder: Path, *stages: Any, cache: str = "cache") -> State:
    """Return the state after these stages on a tiny student whose labels have no names and whose rows are pairs."""
    if not (folder / "student").exists():
        save_model(tiny_model(num_labels=2), tiny_tokenizer(), folder / "student")
    (folder / cache).mkdir()
    labels, texts = zip(*reviews(20, 0), strict=True)
    split = Split(texts, texts[::-1], labels=np.array([label == "good" for label in labels], np.int64))
    data = Dataset("reviews", Classification(("LABEL_0", "LABEL_1")), split, split, split)
    state = State.begin(data, Workshop(folder / cache), 0, student=Model(folder / "student", "s"))
    for stage in stages:
        state = stage(state)
    return state


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    stages = (Onnx(), *SEVEN.values(), *EIGHT.values(), TransformersJs(), Triton())
    return made(tmp_path_factory.mktemp("storage"), *stages)


def test_config_says_what_runs_an_artifact_and_how_its_rows_are(state: State) -> None:
    expected = {
        "onnx": (None, (), "1.17.0"), "static": (7, (), "1.17.0"), "fp16": (None, (), "1.17.0"),
        "dynamic": (8, INT8_DOT_PRODUCT, "1.17.0"), "groups": (4, (), "1.19.0"), "symmetric": (8, (), "1.17.0"),
        "transformers_js": (7, (), "1.17.0"), "triton": (None, (), "1.17.0"),
    }  # fmt: skip
    files = {"transformers_js": "onnx/model_quantized.onnx", "triton": "onnx/1/model.onnx"}
    assert {artifact.name for artifact in state.artifacts} == set(expected)
    for artifact in state.artifacts:
        facts = read_facts(artifact.folder)
        assert facts is not None
        assert (facts.pairs, facts.longest_row) == (True, 32)
        bits, instructions, oldest = expected[artifact.name]
        graph = facts.graph
        assert graph == GraphFacts(
            file=files.get(artifact.name, "model.onnx"),
            opset=20, ir_version=9, onnxruntime=oldest, weight_bits=bits, instructions=tuple(instructions),
        ), artifact.name  # fmt: skip
        config = json.loads((artifact.folder / "config.json").read_text())
        assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}  # which transformers leaves out
        file = onnx.load(artifact.folder / graph.file)
        assert file.ir_version == 9
        domains = {"", "com.microsoft"} if artifact.name == "groups" else {""}
        assert {entry.domain for entry in file.opset_import} == domains
        assert not file.graph.value_info


def test_a_raw_tokenizer_cuts_and_pads_as_our_answers_do(state: State) -> None:
    folder = state.artifacts[0].folder
    alone, session = Tokenizer.from_file(str(folder / "tokenizer.json")), load_session(folder)
    ours = predict(folder, TEXTS, TEXTS[::-1])
    for (first, second), answer in zip(zip(TEXTS, TEXTS[::-1], strict=True), ours, strict=True):
        row = alone.encode(first, second)
        assert len(row.ids) <= 32
        feed = {"input_ids": row.ids, "attention_mask": row.attention_mask, "token_type_ids": row.type_ids}
        logits = session({name: np.array([numbers]) for name, numbers in feed.items()})[0]
        shares = np.exp(logits - logits.max())
        assert answer["probability"] == pytest.approx(float(shares.max() / shares.sum()), abs=1e-5)


def test_graphs_above_the_limit_keep_their_weights_beside_them_and_say_the_same(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MOST_INLINE", 4000)
    shutil.copytree(state.given_student.folder, tmp_path / "student")
    stages = (Onnx(), *SEVEN.values(), EIGHT["dynamic"], EIGHT["groups"], TransformersJs())
    large = {artifact.name: artifact.folder for artifact in made(tmp_path, *stages).artifacts}
    tokens = tokenize(state.data.test, load_tokenizer(large["onnx"]), 32)
    for artifact in state.artifacts:
        if artifact.name not in large or artifact.holds:
            continue
        folder = large[artifact.name]
        inside, outside = folder / "model.onnx", folder / "model.onnx_data"
        assert outside.stat().st_size >= 1024
        assert outside.stat().st_mode & 0o777 == 0o644
        assert inside.stat().st_size < (artifact.folder / "model.onnx").stat().st_size
        found, expected = (one_by_one(load_session(place), tokens) for place in (folder, artifact.folder))
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=artifact.name)
    js = large["transformers_js"]
    for name in ("model", "model_quantized", "model_fp16"):
        assert (js / "onnx" / f"{name}.onnx_data").is_file()
        inference_session(js / "onnx" / f"{name}.onnx", 1)
    assert "use_external_data_format: true" in (js / "README.md").read_text()
    assert predict(js, TEXTS, TEXTS) == predict(large["static"], TEXTS, TEXTS)


def test_folders_for_other_programs_answer_too_and_gather_nothing_from_each_other(state: State) -> None:
    *_, js, triton = state.artifacts
    assert (js.holds, triton.holds) == (("onnx", "static", "fp16"), ("onnx", *SEVEN, *EIGHT))
    before = replace(state, artifacts=(*state.artifacts[:-2], triton))
    assert TransformersJs()(before).artifacts[-1].holds == js.holds
    assert predict(triton.folder, TEXTS, TEXTS) == predict(state.artifacts[0].folder, TEXTS, TEXTS)
    assert bench_paths([js.folder, triton.folder], [1], [8], 1, seconds=0.01)


def graph(weight: Any, ir: int = 13, opset: int = 17, kind: str = "MatMul") -> Any:
    """Return a graph that multiplies by a weight, with operator sets that no node is of."""
    nodes = [helper.make_node(kind, ["x", "w"], ["logits"])]
    if weight.data_type != TensorProto.FLOAT:
        nodes = [
            helper.make_node("DequantizeLinear", ["w", "scale"], ["floats"]),
            helper.make_node(kind, ["x", "floats"], ["logits"]),
        ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "logits")]
    stored = [weight, numpy_helper.from_array(np.float32(0.1), "scale")]
    sets = [helper.make_opsetid(domain, version) for domain, version in (("", opset), ("ai.onnx.ml", 5), ("own", 1))]
    made = helper.make_graph(nodes, "graph", values[:1], values[1:], stored)
    return helper.make_model(made, opset_imports=sets, ir_version=ir)


@pytest.mark.parametrize(
    ("kind", "opset", "lowest", "oldest"),
    [
        ("FLOAT", 17, 8, "1.15.0"), ("FLOAT", 19, 9, "1.15.0"), ("FLOAT", 20, 9, "1.17.0"), ("FLOAT", 21, 10, "1.18.0"),
        ("FLOAT", 23, 11, "1.23.0"), ("INT4", 21, 10, "1.18.0"),
    ],
)  # fmt: skip
def test_a_file_is_of_the_lowest_ir_version_that_has_its_operators_and_types_and_names_no_idle_domain(
    kind: str, opset: int, lowest: int, oldest: str, tmp_path: Path
) -> None:
    weight = helper.make_tensor("w", TensorProto.DataType.Value(kind), [2, 2], [1, 2, 3, 4])
    save_graph(graph(weight, opset=opset), tmp_path / "model.onnx")
    file = onnx.load(tmp_path / "model.onnx")
    assert (file.ir_version, [entry.domain for entry in file.opset_import]) == (lowest, [""])
    assert needs_of(file, "model.onnx").onnxruntime == oldest


@pytest.mark.parametrize(("largest", "bits"), [(64, 7), (65, 8), (-64, 7), (-128, 8)])
def test_bits_of_weights_are_read_from_the_weights(largest: int, bits: int) -> None:
    weight = numpy_helper.from_array(np.array([[1, -3], [largest, 0]], np.int8), "w")
    needs = needs_of(graph(weight), "model.onnx")
    assert (needs.weight_bits, bool(needs.instructions)) == (bits, bits == 8)
    beside = numpy_helper.from_array(np.full((2, 2), 127, np.uint8), "w")  # u8: products do not saturate
    assert needs_of(graph(beside), "model.onnx").instructions == ()


def test_an_operator_that_was_never_tried_needs_the_version_that_is_here() -> None:
    import onnxruntime

    model = graph(numpy_helper.from_array(np.eye(2, dtype=np.float32), "w"), kind="NewAttention")
    model.graph.node[0].domain = "com.microsoft"
    assert needs_of(model, "model.onnx").onnxruntime == onnxruntime.__version__
    assert numbered("1.9.2") < numbered("1.15.0") < numbered("1.15.1+cu12")


def test_a_large_graph_in_memory_runs_and_its_shapes_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MOST_INLINE", 1000)
    values = np.arange(1024, dtype=np.float32).reshape(2, 512)
    model = graph(numpy_helper.from_array(values, "w"), ir=8)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2]))
    shape = inferred(model, strict=True).graph.output[0].type.tensor_type.shape
    assert [size.dim_param or size.dim_value for size in shape.dim] == ["batch", 512]
    before = model.SerializeToString(deterministic=True)
    assert (graph_session(model, 1)({"x": np.eye(2, dtype=np.float32)}) == values).all()
    assert model.SerializeToString(deterministic=True) == before
    save_graph(model, tmp_path / "one.onnx")
    copy_graph(tmp_path / "one.onnx", tmp_path / "two.onnx")
    (tmp_path / "one.onnx_data").unlink()  # the copy is whole without it
    assert (graph_session(tmp_path / "two.onnx", 1)({"x": np.eye(2, dtype=np.float32)}) == values).all()
