"""TensorRT engines, built without a GPU; what runs in them; and what is left where none can be built."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from transformers import BertConfig, BertForSequenceClassification

from compress.benchmark.stage import Benchmark
from compress.data.dataset import Dataset, Split
from compress.export.onnx import Onnx
from compress.export.tensorrt import EnginePrecision, TensorRt, command
from compress.export.triton import not_served
from compress.known import Known
from compress.models.loading import quiet, save_model
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.symmetric import last_products
from compress.runtimes import tensorrt_bindings
from compress.runtimes.devices import CPU
from compress.runtimes.engine_layers import Layer, read_layers, summarise
from compress.runtimes.tensorrt import TensorRtRuntime
from compress.runtimes.tensorrt_bindings import RTX, CannotBuild, Target, build, targets
from compress.settings import all_faults
from compress.tasks.classification import Classification
from tests.conftest import VOCABULARY, reviews, tiny_tokenizer
from tests.run.test_recipe import recipe, report

pytest.importorskip("tensorrt_rtx_bindings", reason="the wheels of TensorRT-RTX are not installed")

CAPABILITIES = ["8.6", "12.0"]
BLOCKS, PRODUCTS = 2, 18  # two layers: 8 products each, with attention's two; pooler and classifier


@pytest.fixture
def state(tmp_path: Path) -> State:
    return state_in(tmp_path)


def state_in(folder: Path) -> State:
    """Return a state with a student whose heads are wide enough to be fused."""
    with quiet():
        student = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(VOCABULARY), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=128, max_position_embeddings=64,
            )
        )  # fmt: skip
    (folder / "student").mkdir()
    save_model(student, tiny_tokenizer(), folder / "student")
    labels, texts = zip(*reviews(40, 0), strict=True)
    split = Split(texts, labels=np.array([label == "good" for label in labels], np.int64))
    data = Dataset("reviews", Classification(("bad", "good")), split, split, split)
    (folder / "cache").mkdir()
    return State.begin(data, Workshop(folder / "cache"), 0, student=Model(folder / "student", "student"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The artifacts of all precisions for two GPUs, by precision."""
    stage = TensorRt(precisions=list(EnginePrecision), compute_capabilities=CAPABILITIES, rows=8)
    after = stage(state_in(tmp_path_factory.mktemp("engines")))
    return {artifact.precision: artifact for artifact in after.artifacts}


def layers(artifact: Any, gpu: str = "sm86") -> list[Layer]:
    found = json.loads((artifact.folder / f"{gpu}.layers.json").read_text())
    return [Layer(**{k: tuple(v) if isinstance(v, list) else v for k, v in difference.items()}) for difference in found]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_for_each_compute_capability(built: dict[str, Any], precision: str) -> None:
    folder = built[precision].folder
    for gpu, other in (("sm86", "sm120"), ("sm120", "sm86")):
        engine = (folder / f"{gpu}.engine").read_bytes()
        assert f"accelerators={{{gpu} }}".encode() in engine
        assert f"accelerators={{{other} }}".encode() not in engine
    assert (folder / "model.onnx").is_file()
    assert (folder / "tokenizer.json").is_file()


def test_products_run_in_int8_but_for_the_classifier_and_attention_stays_fused(built: dict[str, Any]) -> None:
    for gpu in ("sm86", "sm120"):
        counts = summarise(layers(built["int8"], gpu), built["int8"].folder / "model.onnx")
        assert (counts.int8_products, counts.products) == (PRODUCTS - 1, PRODUCTS)
        assert (counts.fused_attention, counts.attention) == (BLOCKS, BLOCKS)
    executed = TensorRtRuntime().executed(built["int8"].folder, CPU)
    assert executed is not None
    assert (executed.int8, executed.products) == (PRODUCTS - 1, PRODUCTS)


def test_fp16_engines_fuse_attention_and_keep_normalizations_in_fp32(built: dict[str, Any]) -> None:
    artifact = built["fp16"]
    counts = summarise(layers(artifact), artifact.folder / "model.onnx")
    assert (counts.int8_products, counts.fused_attention) == (0, BLOCKS)
    types = {kind for layer in layers(artifact) for kind in (*layer.inputs, *layer.outputs)}
    assert "Half" in types
    assert "Int8" not in types
    normalizing = [layer for layer in layers(artifact) if any("layer_norm" in node for node in layer.nodes)]
    assert len(normalizing) >= 2 * BLOCKS + 1
    assert all("Float" in layer.constants for layer in normalizing if "Mean" in layer.name and "Sqrt" in layer.name)


def test_fp32_engines_are_fp32_throughout(built: dict[str, Any]) -> None:
    types = {kind for layer in layers(built["fp32"]) for kind in (*layer.inputs, *layer.constants, *layer.outputs)}
    assert not types & {"Half", "Int8"}
    assert summarise(layers(built["fp32"]), built["fp32"].folder / "model.onnx").int8_products == 0


def test_the_table_of_layers_names_every_product_of_the_graph(built: dict[str, Any]) -> None:
    for artifact in built.values():
        graph = onnx.load(artifact.folder / "model.onnx").graph
        products = {node.name for node in graph.node if node.op_type in ("MatMul", "Gemm")}
        assert products <= {name for layer in layers(artifact) for name in layer.nodes}


def test_the_int8_graph_says_nearly_what_the_fp32_graph_says(built: dict[str, Any]) -> None:
    numbers = np.random.default_rng(0).integers(4, len(VOCABULARY), (8, 16))
    batch = {"input_ids": numbers, "attention_mask": np.ones_like(numbers), "token_type_ids": np.zeros_like(numbers)}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # what the graph means, not what this CPU does
    outputs = {
        name: onnxruntime.InferenceSession(str(engine.folder / "model.onnx"), options).run(None, batch)[0]
        for name, engine in built.items()
    }
    np.testing.assert_allclose(outputs["fp16"], outputs["fp32"], atol=5e-3)
    np.testing.assert_allclose(outputs["int8"], outputs["fp32"], atol=0.05)
    assert np.abs(outputs["int8"] - outputs["fp32"]).max() > np.abs(outputs["fp16"] - outputs["fp32"]).max() / 10


def test_a_product_whose_activations_are_not_int8_does_not_count(built: dict[str, Any], tmp_path: Path) -> None:
    """Int8 weights alone: TensorRT unpacks them before the product, which then runs in floats."""
    model = onnx.load(built["int8"].folder / "model.onnx")
    back = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    quantized = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for node in model.graph.node:
        if node.op_type == "MatMul":
            for place, name in enumerate(node.input):
                if name in back and back[name].input[0] in quantized:
                    node.input[place] = quantized[back[name].input[0]].input[0]
    onnx.save(model, tmp_path / "weights.onnx")
    engine = build(tmp_path / "weights.onnx", shapes(), Target("8.6", RTX), None)
    counts = summarise(read_layers(engine.layers), tmp_path / "weights.onnx")
    assert counts.products == PRODUCTS
    assert counts.int8_products <= 1  # the pooler is a Gemm


def shapes() -> dict[str, list[tuple[int, int]]]:
    return {name: [(1, 2), (8, 16), (32, 48)] for name in ("input_ids", "attention_mask", "token_type_ids")}


def test_an_engine_takes_the_batches_and_lengths_of_its_profile(built: dict[str, Any]) -> None:
    engine = build(built["fp16"].folder / "model.onnx", shapes(), Target("8.6", RTX), None)
    told = [line for line in engine.layers.splitlines() if "MinShape" in line]
    assert len(told) == 3
    assert all("MinShape: [1,2], OptShape: [8,16], MaxShape: [32,48]" in line for line in told)


def test_timings_go_from_one_build_to_the_next_in_a_file(built: dict[str, Any], tmp_path: Path) -> None:
    """TensorRT-RTX takes and gives timings as TensorRT does, but warns that it leaves them unused."""
    graph, file = built["fp16"].folder / "model.onnx", tmp_path / "sm86.timings"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        first = build(graph, shapes(), Target("8.6", RTX), file)
        kept = file.read_bytes()
        second = build(graph, shapes(), Target("8.6", RTX), file)
    assert len(kept) > 100
    assert file.read_bytes() == kept
    assert len(first.engine) == len(second.engine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sm86.lock", "sm86.timings"]


def test_without_a_gpu_the_graph_and_the_command_are_left_ready(state: State) -> None:
    stage = TensorRt(precisions=[EnginePrecision.fp16], batch=[1, 4, 8], tokens=[2, 16, 32])
    artifact = stage(state).artifacts[-1]
    assert artifact.unmeasured.startswith("not built: there is no NVIDIA GPU here")
    assert not list(artifact.folder.glob("*.engine"))
    onnx.checker.check_model(onnx.load(artifact.folder / "model.onnx"))
    script = artifact.folder / "build.sh"
    subprocess.run(["sh", "-n", script], check=True)
    words = shlex.split(script.read_text().splitlines()[-1])
    assert words[0] == "trtexec"
    assert "--onnx=model.onnx" in words
    assert "--stronglyTyped" in words
    assert "--maxShapes=input_ids:8x32,attention_mask:8x32,token_type_ids:8x32" in words


def test_the_command_covers_the_profile() -> None:
    words = shlex.split(command({"input_ids": [(1, 2), (8, 64), (32, 128)]}))
    assert [word for word in words if "Shapes" in word] == [
        "--minShapes=input_ids:1x2", "--optShapes=input_ids:8x64", "--maxShapes=input_ids:32x128",
    ]  # fmt: skip


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = []
    for capabilities, here, missing in (
        ([], None, []),
        ([], None, [RTX]),
        (["8.6"], None, [RTX]),
        ([], "9.0", ["tensorrt"]),
        ([], "9.0", ["tensorrt", RTX]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(tensorrt_bindings, "compute_capability", lambda here=here: here)
            for package in {"tensorrt", *missing}:
                patch.setitem(sys.modules, package, None)
            with pytest.raises(CannotBuild) as refused:
                targets(capabilities)
        reasons.append(str(refused.value))
    assert len(set(reasons)) == len(reasons)
    assert not any("\n" in reason or ". " in reason for reason in reasons)
    assert "pip install 'compress-encoders[tensorrt]'" in reasons[2]
    assert "9.0" in reasons[3]
    assert all(name in reasons[4] for name in ("neither tensorrt", "nor TensorRT-RTX"))


def test_the_gpu_that_is_here_is_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_bindings, "compute_capability", lambda: "8.9")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert targets([]) == [Target("8.9", RTX)]


def test_a_graph_that_tensorrt_cannot_read_is_refused(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "m.onnx")
    with pytest.raises(CannotBuild, match=r"^TensorRT cannot read m.onnx: .*Det"):
        build(tmp_path / "m.onnx", {"x": [(1, 2), (1, 2), (1, 2)]}, Target("8.6", RTX), None)


def test_what_is_built_stays_where_another_gpus_engine_cannot_be(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.export import tensorrt as stage

    def only_first(path: Path, shapes: Any, target: Target, timings: Any) -> Any:
        if target.name == "sm120":
            raise CannotBuild("TensorRT ran out of memory")
        return build(path, shapes, target, timings)

    monkeypatch.setattr(stage, "build", only_first)
    (artifact,) = TensorRt(compute_capabilities=CAPABILITIES)(state).artifacts
    assert sorted(path.name for path in artifact.folder.glob("*.engine")) == ["sm86.engine"]
    assert not artifact.unmeasured
    assert "sm120: not built: TensorRT ran out of memory" in artifact.notes
    assert "Triton runs those of TensorRT itself" in not_served(artifact)


def test_the_command_runs_from_any_folder(state: State, tmp_path: Path) -> None:
    (artifact,) = TensorRt()(state).artifacts
    (tmp_path / "trtexec").write_text("#!/bin/sh\nls; echo $1\n")
    (tmp_path / "trtexec").chmod(0o755)
    process = subprocess.run(
        ["sh", artifact.folder / "build.sh"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, cwd="/",
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "model.onnx" in process
    assert process[-1] == "--onnx=model.onnx"


def test_settings_that_cannot_be_are_refused_before_work() -> None:
    def faults(**settings: Any) -> list[str]:
        return [str(fault) for fault in all_faults(TensorRt(**settings))]

    assert not faults(precisions=[EnginePrecision.int8], compute_capabilities=["7.5", "12.1"], tokens=[2, 64, 64])
    assert "12.0" in faults(compute_capabilities=["9.0"])[0]
    assert "smallest, best, largest" in faults(batch=[8, 1, 32])[0]
    assert "from 2" in faults(tokens=[1, 8, 16])[0]
    assert faults(precisions=[])
    assert faults(precisions=[EnginePrecision.fp16, EnginePrecision.fp16])
    too_long = list(TensorRt(tokens=[2, 64, 128]).faults(Known(student=BertConfig(max_position_embeddings=64))))
    assert "64 tokens" in str(too_long[0])


def test_the_classifier_is_found_behind_whatever_follows_it(built: dict[str, Any]) -> None:
    assert last_products(built["fp32"].folder / "model.onnx") == ["node_Gemm_228"]
    assert last_products(built["fp16"].folder / "model.onnx") == ["node_Gemm_228"]  # a cast follows


def test_a_run_lists_engines_as_built_and_not_measured_and_makes_nothing_twice(
    files: dict[str, Path], teacher_folder: Path, tmp_path: Path
) -> None:
    def run() -> None:
        recipe(
            files, teacher_folder, tmp_path,
            export={
                "onnx": Onnx(),
                "tensorrt": TensorRt(
                    precisions=[EnginePrecision.fp16, EnginePrecision.int8], compute_capabilities=["8.6"], rows=8
                ),
            },
            prune={}, quantize={},
            benchmark=Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, labels_only=False, teacher_int8=False),
        ).run()  # fmt: skip

    run()
    facts = report(tmp_path)
    engines = {artifact["name"]: artifact for artifact in facts["artifacts"] if artifact["runtime"] == "tensorrt"}
    assert sorted(engines) == ["tensorrt-fp16", "tensorrt-int8"]
    assert facts["recommended"] in ("student", "onnx")
    for name, engine in engines.items():
        assert engine["not_measured"] == "engines run on an NVIDIA GPU (device cuda)"
        assert "metrics" not in engine
        assert engine["size_mib"] > 0
        assert sorted(path.name for path in (tmp_path / "run" / engine["path"]).iterdir()) == [
            "build.sh", "config.json", "model.onnx", "sm86.engine", "sm86.layers.json", "tokenizer.json",
            "tokenizer_config.json",
        ]  # fmt: skip
        for page in ("report.md", "report.html"):
            text = (tmp_path / "run" / page).read_text()
            assert f"{name}: not measured: engines run on an NVIDIA GPU" in text
            assert "matrix products in int8" in text
    assert engines["tensorrt-int8"]["int8_matmuls"][0] > 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.engine")}
    run()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.engine")} == before
    assert len(before) == 2
