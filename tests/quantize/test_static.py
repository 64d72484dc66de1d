"""Static int8: its ranges and graphs beside ONNX Runtime's own, and every way of calibration through a whole run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from compress.benchmark.stage import Benchmark
from compress.data.dataset import Dataset, Split
from compress.distill.losses import SoftTargets
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.models.tokens import Tokens, tokenize
from compress.onnx.folder import MODEL
from compress.onnx.graph import input_names, write_onnx
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.calibrated import clipped
from compress.quantize.calibration import Collector, RangeRule, even_batches, measure_ranges, of_softmax
from compress.quantize.int8 import DynamicInt8, StaticInt8, WeightBits
from compress.quantize.qdq import IntegerScheme, activations, nodes_by_part, parts_of_activations, prepared, with_qdq
from compress.quantize.ranges import Calibration
from compress.quantize.symmetric import SymmetricInt8
from compress.run.recipe import Recipe
from compress.runtimes.devices import CPU
from compress.runtimes.onnxruntime import OnnxRuntime, inference_session
from compress.runtimes.rows import model_inputs
from compress.settings import all_faults
from compress.student.bert import Bert
from compress.tasks.classification import Classification
from tests.conftest import BERT_NOW, Graphs, reviews, save_tiny, tiny_model, tiny_tokenizer, write_tsv
from tests.run.test_recipe import made, recipe, report


def rows(count: int = 40, family: str = "bert") -> Tokens:
    """Return tokens of made-up reviews of many lengths."""
    return tokenize(Split(tuple(text for _, text in reviews(count, 7))), tiny_tokenizer(family), 32)


def names_and_ranges(path: Path, tokens: Tokens, rule: RangeRule) -> tuple[Any, list[str], dict[str, Any]]:
    model = prepared(path)
    parts = nodes_by_part(model, attention=True, embeddings=True)
    nodes = [node for part in parts.values() for node in part]
    return model, nodes, measure_ranges(model, activations(model, nodes), tokens, rule, seed=0).ranges


class OneByOne(CalibrationDataReader):  # type: ignore[misc]
    """Rows for ONNX Runtime's own calibrator."""

    def __init__(self, tokens: Tokens) -> None:
        self.feeds = iter([model_inputs(tokens, [row]) for row in range(len(tokens))])

    def get_next(self) -> Any:
        return next(self.feeds, None)


@pytest.mark.parametrize("family", BERT_NOW)
def test_the_graph_is_the_one_that_onnx_runtimes_own_calibration_gives(
    tmp_path: Path, family: str, graphs: Graphs
) -> None:
    tokens, path = rows(family=family), graphs(family)
    model, nodes, ranges = names_and_ranges(path, tokens, RangeRule())
    ours = with_qdq(model, nodes, ranges, IntegerScheme())
    onnx.save(model, tmp_path / "prepared.onnx")
    kinds = ["MatMul", "Gemm", "Gather"]
    quantize_static(
        tmp_path / "prepared.onnx", tmp_path / "theirs.onnx", OneByOne(tokens), quant_format=QuantFormat.QDQ,
        op_types_to_quantize=kinds, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        extra_options={"OpTypesToExcludeOutputQuantization": kinds},
    )  # fmt: skip
    theirs = onnx.load(tmp_path / "theirs.onnx")
    assert [(n.op_type, n.name) for n in ours.graph.node] == [(n.op_type, n.name) for n in theirs.graph.node]
    stored = [
        {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer} for made in (ours, theirs)
    ]
    assert stored[0].keys() == stored[1].keys()
    for name, values in stored[0].items():
        np.testing.assert_allclose(values, stored[1][name], rtol=1e-4, atol=1, err_msg=name) if (
            values.dtype.kind in "iu"
        ) else np.testing.assert_allclose(values, stored[1][name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("how", Calibration)
def test_ranges_are_those_of_all_values_kept(graphs: Graphs, how: Calibration) -> None:
    """The same tensors, run row by row and kept whole; moving averages batch by batch."""
    tokens, path = rows(), graphs("bert")
    rule = RangeRule(how=how, percentile=99.0, decay=0.8)
    model, nodes, ranges = names_and_ranges(path, tokens, rule)
    names = activations(model, nodes)
    assert list(ranges) == names
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = inference_session(shown, threads=1)
    batches = [[row] for row in range(len(tokens))]
    if how is Calibration.moving_average:
        batches = [batch.tolist() for batch in even_batches(tokens, 0)]
    kept: dict[str, list[Any]] = {name: [] for name in names}
    for batch in batches:
        for name, values in zip(names, session.run(names, model_inputs(tokens, batch)), strict=True):
            kept[name].append(values.ravel())
    for name, (low, high) in ranges.items():
        whole = np.concatenate(kept[name])
        if how is Calibration.minmax or (how is Calibration.entropy and name in of_softmax(model.graph)):
            assert (low, high) == pytest.approx((whole.min(), whole.max()), rel=1e-4, abs=1e-6)
        elif how is Calibration.moving_average:
            expected = np.array([kept[name][0].min(), kept[name][0].max()])
            for values in kept[name][1:]:
                expected = 0.8 * expected + 0.2 * np.array([values.min(), values.max()])
            assert (low, high) == pytest.approx(tuple(expected), rel=1e-4, abs=1e-6)
        else:
            once = Collector(rule)
            once.add(whole)
            width = once.seen.width  # type: ignore[union-attr]
            assert (low, high) == pytest.approx(once.range(), abs=2 * width)
            assert min(whole.min(), 0) <= low <= high <= whole.max()


def test_what_is_kept_does_not_grow_with_the_rows(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Collector] = []

    class Watched(Collector):
        def __init__(self, rule: RangeRule) -> None:
            super().__init__(rule)
            seen.append(self)

    monkeypatch.setattr("compress.quantize.calibration.Collector", Watched)
    path, sizes = graphs("bert"), {}
    for count in (5, 80):
        for how in Calibration:
            seen.clear()
            names_and_ranges(path, rows(count), RangeRule(how=how))
            arrays = [v.nbytes for item in seen for v in vars(item.seen).values() if isinstance(v, np.ndarray)]
            sizes[how, count] = len(seen), sum(arrays)
    assert all(sizes[how, 5] == sizes[how, 80] for how in Calibration)
    assert sizes[Calibration.minmax, 80][1] == 0
    without_softmax = sizes[Calibration.entropy, 80][0] - 4  # one per layer is taken outright
    assert sizes[Calibration.entropy, 80][1] == without_softmax * 4096 * 8


def test_batches_have_no_padding_and_every_row_once() -> None:
    tokens = rows(200)
    found = list(even_batches(tokens, 3))
    assert sorted(np.concatenate(found).tolist()) == list(range(200))
    assert all(len(set(tokens.lengths[batch])) == 1 for batch in found)
    assert any(len(batch) > 1 for batch in found)


def tiny(folder: Path, **changes: Any) -> Recipe:
    files = {name: folder / f"{name}.tsv" for name in ("train", "validation", "test")}
    settings: dict[str, Any] = {
        "student": Bert(layers=2),
        "distill": Distill(
            losses={"soft": SoftTargets()}, epochs=2, learning_rate=5e-3, batch_size=16, teacher_outputs=Keep.disk
        ),
        "prune": {},
        "export": {},
        "benchmark": Benchmark(
            rows=3, batches=[1], tokens=[8], seconds=0.02, tfidf=False, labels_only=False, teacher_int8=False
        ),
    }
    return replace(recipe(files, folder / "teacher", folder), **settings | changes)


CANDIDATES = {how.value: StaticInt8(rows=48, calibration=how) for how in Calibration}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("static")
    for name, count, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 200, 3)):
        write_tsv(made / f"{name}.tsv", reviews(count, seed))
    save_tiny(made / "teacher")
    tiny(made, quantize={**CANDIDATES, "symmetric": SymmetricInt8(rows=48)}).run()
    return made


def test_every_calibration_gives_a_file_that_agrees_with_the_student(folder: Path) -> None:
    found = {artifact["name"]: artifact for artifact in report(folder)["artifacts"]}
    for name in CANDIDATES:
        assert found[name]["agreement"] >= 0.98, name
        assert found[name]["int8_matmuls"] == [18, 18]
        assert any(f"ranges by {name}" in note for note in found[name]["notes"])
    files = {(folder / "run" / "artifacts" / name / MODEL).read_bytes() for name in CANDIDATES}
    assert len(files) == len(CANDIDATES)


def test_the_form_for_tensorrt_is_scored_in_floats_and_is_signed_around_zero(folder: Path) -> None:
    found = next(artifact for artifact in report(folder)["artifacts"] if artifact["name"] == "symmetric")
    assert found["agreement"] >= 0.98
    assert found["int8_matmuls"] == [0, 18]
    model = onnx.load(folder / "run" / "artifacts" / "symmetric" / MODEL)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    steps = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert steps
    for node in steps:
        zero = stored[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()


def test_a_second_run_does_nothing_again_and_another_calibration_only_its_own_work(folder: Path) -> None:
    before = made(folder)
    tiny(folder, quantize={**CANDIDATES, "symmetric": SymmetricInt8(rows=48)}).run()
    assert made(folder) == before
    other = {"percentile": StaticInt8(rows=48, calibration=Calibration.percentile, percentile=99.0)}
    tiny(folder, quantize=other, output=str(folder / "other")).run()
    kinds = {name.rpartition("-")[0] for name in made(folder) - before}
    assert kinds - {"logits", "latency"} == {"static"}
    assert json.loads((folder / "other" / "report.json").read_text())["artifacts"][-1]["agreement"] >= 0.98


@pytest.mark.parametrize("vnni", [True, False])
def test_weights_have_the_bits_that_the_processor_sums_rightly_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vnni: bool
) -> None:
    """The largest integers of the dynamic and static forms: 127 of 8 bits, 64 of 7 (reduced range)."""
    monkeypatch.setattr("compress.quantize.int8.int8_dot_product", lambda: vnni)
    save_tiny(tmp_path / "student", "bert", num_labels=2)
    texts, labels = zip(*[(text, int(label == "good")) for label, text in reviews(40, 0)], strict=True)
    split = Split(texts, labels=np.array(labels, np.int64))
    data = Dataset("reviews", Classification(("bad", "good")), split, split, split)
    (tmp_path / "cache").mkdir()
    state = State.begin(data, Workshop(tmp_path / "cache"), 0, student=Model(tmp_path / "student", "student"))
    most = {}
    for bits in WeightBits:
        for stage in (DynamicInt8(weight_bits=bits, embeddings=False), StaticInt8(weight_bits=bits, embeddings=False)):
            artifact = stage(state).artifacts[-1]
            weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(artifact.folder / MODEL).graph.initializer]
            matrices = [tensor for tensor in weights if tensor.dtype == np.int8 and tensor.ndim == 2]
            assert len(matrices) >= 12
            most[bits.value, artifact.name] = max(int(np.abs(item.astype(int)).max()) for item in matrices)
            assert any(f"weights in {'8' if most[bits.value, artifact.name] > 100 else '7'} bits" in note
                       for note in artifact.notes)  # fmt: skip
    own = 127 if vnni else 64
    assert {bits: most[bits, "dynamic"] for bits in ("auto", "7", "8")} == {"auto": own, "7": 64, "8": 127}
    assert {bits: most[bits, "static"] for bits in ("auto", "7", "8")} == {"auto": own, "7": 64, "8": 127}


def test_attentions_own_products_can_stay_in_floats(tmp_path: Path, graphs: Graphs) -> None:
    model = prepared(graphs("bert"))
    parts = nodes_by_part(model, attention=False, embeddings=False)
    nodes = [node for part in parts.values() for node in part]
    ranges = measure_ranges(model, activations(model, nodes), rows(8), RangeRule(), 0).ranges
    onnx.save(with_qdq(model, nodes, ranges, IntegerScheme()), tmp_path / MODEL)
    executed = OnnxRuntime().executed(tmp_path, CPU)
    assert executed is not None
    assert (executed.int8, executed.products) == (26, 34)


def test_entropy_takes_what_a_softmax_gives_outright_and_warns_where_it_clips(tmp_path: Path) -> None:
    """With the tails of trained models: one unit in thirty-two of a layer answers far above the others."""
    network = tiny_model()
    with torch.no_grad():
        network.bert.encoder.layer[1].intermediate.dense.weight[3] *= 60
    write_onnx(network, input_names(tiny_tokenizer()), tmp_path / MODEL)
    model, tokens = prepared(tmp_path / MODEL), rows(40)
    parts = nodes_by_part(model, attention=True, embeddings=False)
    names = activations(model, [node for part in parts.values() for node in part])
    shares = of_softmax(model.graph) & set(names)
    assert len(shares) == 4  # one per layer, where it is multiplied with the values
    entropy, minmax = (
        measure_ranges(model, names, tokens, RangeRule(how=how), 0) for how in (Calibration.entropy, Calibration.minmax)
    )
    assert {name: entropy.ranges[name] for name in shares} == {name: minmax.ranges[name] for name in shares}
    assert all(entropy.excess[name] == 1 for name in shares)
    assert not minmax.excess
    (warning,) = clipped(entropy.excess, parts_of_activations(model, parts))
    assert "times in layer 2 ffn. Use mse." in warning
    assert warning.startswith("entropy clips ")
    assert clipped({"a": 3.9}, {}) == clipped({}, {}) == []


def test_settings_of_another_calibration_are_refused() -> None:
    wrong = StaticInt8(rows=0, percentile=99.0, decay=1.0)
    assert [fault.setting for fault in all_faults(wrong)] == ["rows", "decay", "percentile", "decay"]
    assert not list(all_faults(StaticInt8(calibration=Calibration.percentile, percentile=99.0)))
    assert [f.setting for f in all_faults(StaticInt8(calibration=Calibration.percentile, percentile=30))] == [
        "percentile"
    ]
