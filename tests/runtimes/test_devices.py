"""A device of the tests' own, used throughout a run, `compress bench` and `compress predict`; and what runs where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForTokenClassification

from compress.benchmark import ways
from compress.benchmark.figures import Entry
from compress.benchmark.stage import Benchmark
from compress.cli.main import main
from compress.errors import CompressError, ModelError
from compress.export.onnx import Onnx
from compress.onnx.folder import MODEL
from compress.onnx.graph import input_names, write_onnx
from compress.onnx.half import in_half
from compress.quantize.int8 import DynamicInt8
from compress.report.document import parse
from compress.report.schema import Report
from compress.report.table import print_report
from compress.report.timings import grids
from compress.run.bench import bench_paths
from compress.run.predict import predict
from compress.runtimes import devices, registry
from compress.runtimes.base import Session
from compress.runtimes.devices import CPU, CUDA, Device, device_fault, register_device
from compress.runtimes.onnxruntime import OnnxCudaSession, graph_session, inference_session
from compress.runtimes.pytorch import COMPILED, FORMS, ON_A_GPU, PyTorch
from compress.runtimes.registry import RUNTIMES, register, runtime_of
from compress.runtimes.tensorrt import TensorRtRuntime
from compress.runtimes.timing import time_in_turns
from compress.settings import all_faults
from tests.conftest import Graphs, reviews, save_tiny, tiny_batch, tiny_model, tiny_tokenizer, write_tsv
from tests.run.test_recipe import recipe, report
from tests.runtimes.counting import MARK, Counting, CountingDevice, CountingRuntime

BOTH = ["cpu", "counter"]
SETTINGS = {"rows": 5, "batches": [2], "tokens": [8], "seconds": 0.02, "labels_only": False, "teacher_int8": False}


@pytest.fixture(scope="module")
def counter() -> Iterator[tuple[CountingDevice, CountingRuntime]]:
    """The counting device and runtime, registered for as long as these tests run."""
    device, runtime = CountingDevice(), CountingRuntime()
    register_device(device)
    register(runtime)
    yield device, runtime
    del devices.DEVICES[device.name], registry.RUNTIMES[runtime.name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, counter: tuple[CountingDevice, CountingRuntime]) -> Path:
    """A run that was measured on both devices."""
    folder = tmp_path_factory.mktemp("devices")
    sizes = {"train": (160, 1), "validation": (40, 2), "test": (60, 3)}
    files = {name: write_tsv(folder / f"{name}.tsv", reviews(*size)) for name, size in sizes.items()}
    recipe(
        files, save_tiny(folder / "teacher"), folder, prune={}, export={"onnx": Onnx(), "counting": Counting()},
        quantize={"dynamic": DynamicInt8()}, benchmark=Benchmark(devices=BOTH, **SETTINGS),
    ).run()  # fmt: skip
    return folder


def test_every_session_is_loaded_placed_run_and_fetched_on_the_device(
    finished: Path, counter: tuple[CountingDevice, CountingRuntime]
) -> None:
    device, runtime = counter
    assert set(runtime.loaded) == {("counter", "plain"), ("counter", "rounded")}
    assert len(runtime.loaded) == 5  # each scored, then timed; the plain one on validation rows too, to be chosen by
    rows, variants, timed_rows = 60, 2, 5
    assert runtime.counts["fetched"] >= variants * (rows + timed_rows)  # all test rows, then with copies
    assert runtime.counts["run"] >= variants * (rows + 2 * timed_rows)  # and without
    assert runtime.counts["run"] > runtime.counts["fetched"]
    assert runtime.counts["placed"] == runtime.counts["fetched"] + variants * (timed_rows + 1)  # placed once for all
    assert device.counts["synchronized"] == 2 * device.counts["timed"] > 0
    assert device.inside == 0


def measured(folder: Path) -> tuple[Report, dict[str, Entry]]:
    """Return a run's report, and its artifacts by name."""
    found = parse(report(folder))
    return found, {artifact.name: artifact for artifact in found.artifacts}


def test_latencies_say_their_device_and_whether_copies_are_in_them(finished: Path) -> None:
    found, artifacts = measured(finished)
    for entry in (*found.stages, artifacts["student"]):
        assert {timing.device for timing in entry.latency} == set(BOTH)
    assert all((timing.copies is None) == (timing.device == "cpu") for timing in found.stages[0].latency)
    assert {timing.device for timing in artifacts["onnx"].latency} == {"cpu"}
    timings = [timing for timing in artifacts["counting"].latency if timing.variant == "plain"]
    assert [(t.batch, t.tokens, t.tokenization, t.copies) for t in timings] == [
        (1, "real", False, False), (1, "real", False, True), (1, "real", True, True), (2, 8, False, False),
        (2, 8, False, True),
    ]  # fmt: skip
    assert {timing.device for timing in timings} == {"counter"}
    assert {timing.variant for timing in artifacts["counting"].latency} == {"plain", "rounded"}


def test_every_way_is_scored_or_says_why_it_does_not_run(finished: Path) -> None:
    _, artifacts = measured(finished)
    runs = {(run.device, run.variant): run for run in artifacts["counting"].runs}
    assert list(runs) == [("cpu", ""), ("counter", "broken"), ("counter", "plain"), ("counter", "rounded")]
    assert runs["cpu", ""].not_measured == "it only counts on a counter"
    assert runs["counter", "broken"].not_measured == "this variant is broken"
    assert runs["counter", "plain"].agreement == 1
    assert runs["counter", "plain"].max_abs_difference == pytest.approx(0, abs=1e-5)
    assert 0 < (runs["counter", "rounded"].max_abs_difference or 0) < 0.1
    assert runs["counter", "rounded"].precision == "fp16"
    assert runs["counter", "plain"].metrics == artifacts["student"].metrics
    assert artifacts["counting"].int8_matmuls == (1, 2)
    (part,) = artifacts["counting"].int8_parts
    assert (part.part, part.int8, part.floats) == ("head", ["classifier"], ["pooler"])
    assert [run.device for run in artifacts["onnx"].runs] == BOTH
    assert "has no provider for counter" in artifacts["onnx"].runs[1].not_measured


def test_speedups_are_against_the_teacher_on_the_same_device(finished: Path) -> None:
    found, artifacts = measured(finished)

    def median(entry: Entry, device: str) -> float:
        timing = entry.headline((device, 1))
        assert timing is not None
        assert timing.device == device
        assert not timing.copies
        return timing.median_ms or 0

    teacher = found.stages[0]
    assert [run.speedup for run in teacher.runs] == [1, 1]
    for run in artifacts["student"].runs:
        assert run.speedup == pytest.approx(median(teacher, run.device) / median(artifacts["student"], run.device))
    plain = next(run for run in artifacts["counting"].runs if run.variant == "plain")
    assert plain.speedup == pytest.approx(median(teacher, "counter") / median(artifacts["counting"], "counter"))
    assert artifacts["counting"].speedup == plain.speedup  # it has no other device


def test_the_report_shows_the_devices_and_each_reason_once(finished: Path, capsys: Any) -> None:
    found, _ = measured(finished)
    print_report(found, Console(width=200))
    printed = capsys.readouterr().out
    pages = [printed, *((finished / "run" / name).read_text() for name in ("report.md", "report.html"))]
    for page in pages:
        assert "counting rounded" in page
        assert page.count("this variant is broken") == 1
        assert page.count("has no provider for counter") == 1
        assert "onnx, dynamic: ONNX Runtime has no provider" in page
    assert [grid.place for grid in grids(found)] == ["cpu, 1 thread", "counter, 1 thread"]
    assert "counting, rounded" in [name for name, _ in grids(found)[1].rows]


def test_nothing_is_measured_twice(
    finished: Path, counter: tuple[CountingDevice, CountingRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine where nothing is noisy; what is would be measured once more."""
    _, runtime = counter
    monkeypatch.setattr(ways, "_noisy", lambda entries: 0)
    before = len(runtime.loaded)
    files = {name: finished / f"{name}.tsv" for name in ("train", "validation", "test")}
    recipe(
        files, finished / "teacher", finished, prune={}, export={"onnx": Onnx(), "counting": Counting()},
        quantize={"dynamic": DynamicInt8()}, benchmark=Benchmark(devices=BOTH, **SETTINGS),
    ).run()  # fmt: skip
    assert len(runtime.loaded) == before


def test_a_single_device_leaves_the_report_as_it_was(finished: Path) -> None:
    files = {name: finished / f"{name}.tsv" for name in ("train", "validation", "test")}
    recipe(
        files, finished / "teacher", finished, name="single", prune={}, export={"onnx": Onnx()}, quantize={},
        benchmark=Benchmark(devices=["cpu"], **SETTINGS), output=str(finished / "single"),
    ).run()  # fmt: skip
    found = parse(json.loads((finished / "single" / "report.json").read_text()))
    assert not any(entry.runs for entry in found.entries)
    assert {timing.copies for entry in found.entries for timing in entry.latency} == {None}
    assert "Every device" not in (finished / "single" / "report.md").read_text()


def test_bench_times_every_device_and_says_what_does_not_run(
    finished: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    counting, onnx = (finished / "run" / "artifacts" / name for name in ("counting", "onnx"))
    rows = bench_paths([counting, finished / "run" / "student"], [1], [8], 1, ["counter"], seconds=0.02)
    assert [(Path(row["path"]).name, row["runtime"], row["variant"]) for row in rows] == [
        ("counting", "counting", "plain"), ("counting", "counting", "rounded"), ("counting", "counting", "broken"),
        ("student", "pytorch", ""),
    ]  # fmt: skip
    assert {timing["device"] for row in rows for timing in row["latency"]} == {"counter"}
    assert main(["bench", str(onnx), "--device", "counter", "--tokens", "8"]) == 2
    assert "ONNX Runtime has no provider for counter" in capsys.readouterr().err
    command = ["bench", str(counting), "--device", "cpu,counter", "--batch", "1", "--tokens", "8"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "it only counts on a counter" in printed.err
    assert "this variant is broken" in printed.err
    assert printed.out.split("\n")[0].split() == [
        "path", "runtime", "device", "variant", "copies", "batch", "tokens", "median_ms", "p90_ms", "p99_ms",
    ]  # fmt: skip


def test_too_little_memory_ends_one_cell_and_says_so(
    finished: Path, counter: tuple[CountingDevice, CountingRuntime], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    _, runtime = counter
    monkeypatch.setattr(runtime, "most_rows", {"rounded": 2})
    folder = finished / "run" / "artifacts" / "counting"
    rows = {row["variant"]: row for row in bench_paths([folder], [1, 4, 2], [8], 1, ["counter"], seconds=0.02)}
    assert all(timing["median_ms"] > 0 for timing in rows["plain"]["latency"])
    cells = {(timing["batch"], timing["copies"]): timing for timing in rows["rounded"]["latency"]}
    assert [key for key, timing in cells.items() if "median_ms" not in timing] == [(4, False), (4, True)]
    assert {cells[4, copies]["not_measured"] for copies in (False, True)} == {"MemoryError: out of memory"}
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["bench", str(folder), "--device", "counter", "--batch", "1,4", "--tokens", "8"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("MemoryError: out of memory") == 1
    assert "rounded, 4 × 8 tokens on counter" in printed.err


def test_a_run_with_a_failed_cell_ends_with_a_report_and_tries_it_again(
    finished: Path, counter: tuple[CountingDevice, CountingRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, runtime = counter
    files = {name: finished / f"{name}.tsv" for name in ("train", "validation", "test")}

    def counting() -> Entry:
        settings = SETTINGS | {"batches": [3]}
        recipe(
            files, finished / "teacher", finished, prune={}, export={"counting": Counting()}, quantize={},
            benchmark=Benchmark(devices=BOTH, **settings), output=str(finished / "failed"),
        ).run()  # fmt: skip
        return next(entry for entry in read().artifacts if entry.name == "counting")

    def read() -> Report:
        return parse(json.loads((finished / "failed" / "report.json").read_text()))

    monkeypatch.setattr(runtime, "most_rows", {"rounded": 2})
    cells = [timing for timing in counting().latency if timing.batch == 3]
    assert {(cell.variant, cell.not_measured) for cell in cells} == {
        ("plain", ""), ("rounded", "MemoryError: out of memory"),
    }  # fmt: skip
    for name in ("report.md", "report.html"):
        page = (finished / "failed" / name).read_text()
        assert page.count("MemoryError: out of memory") == 1
        assert "counting (rounded), 3 × 8 tokens" in page
    monkeypatch.setattr(runtime, "most_rows", {})
    assert not any(timing.not_measured for timing in counting().latency)


def test_sessions_with_memory_of_their_own_give_logits_in_the_shape_of_the_graph(
    tmp_path: Path, graphs: Graphs
) -> None:
    tagger = AutoModelForTokenClassification.from_config(tiny_model(num_labels=5).config)
    write_onnx(tagger, input_names(tiny_tokenizer()), tmp_path / MODEL)
    for graph, shape in ((graphs("bert"), (3, 2)), (tmp_path / MODEL, (3, 9, 5))):
        onnx.save(in_half(onnx.load(graph)), tmp_path / "half.onnx")
        batch = {name: value.numpy() for name, value in tiny_batch().items() if name != "labels"}
        for path in (graph, tmp_path / "half.onnx"):
            session = OnnxCudaSession(inference_session(path, 1), CPU)
            assert session(batch).shape == shape
            assert abs(session(batch) - graph_session(path, 1)(batch)).max() < 1e-6


def test_predict_runs_on_the_device_that_is_named(
    finished: Path, counter: tuple[CountingDevice, CountingRuntime]
) -> None:
    _, runtime = counter
    before = len(runtime.loaded)
    folder = finished / "run" / "artifacts" / "counting"
    with pytest.raises(ModelError, match="it only counts on a counter"):
        predict(folder, ["a good film"])
    (answer,) = predict(folder, ["a good film"], device="counter")
    (expected,) = predict(finished / "run" / "student", ["a good film"])
    assert answer["label"] == expected["label"]
    assert len(runtime.loaded) == before + 1


def test_a_device_that_is_not_here_is_one_fault_before_work(counter: tuple[CountingDevice, CountingRuntime]) -> None:
    device, _ = counter
    device.here = False
    try:
        (fault,) = all_faults(Benchmark(devices=["cpu", "counter"]))
        assert (
            str(fault)
            == ("devices = ['cpu', 'counter']: this machine has no device counter: it was left at home. Here: cpu.")
            or torch.cuda.is_available()
        )
        with pytest.raises(CompressError, match="--device counter: this machine has no device counter"):
            predict(Path(), ["a text"], device="counter")
    finally:
        device.here = True
    (fault,) = all_faults(Benchmark(devices=["cpu", "coutner"]))
    assert "Did you mean counter?" in str(fault)
    assert device_fault(["cpu", "cpu"]) == ("must list each device once", "")
    assert device_fault(BOTH) is None


def test_another_object_cannot_take_a_name_that_is_taken(counter: tuple[CountingDevice, CountingRuntime]) -> None:
    with pytest.raises(ValueError, match="already a device called counter"):
        register_device(CountingDevice())
    with pytest.raises(ValueError, match="already a runtime called counting"):
        register(CountingRuntime())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_every_runtime_says_so(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", num_labels=2)
    for runtime in RUNTIMES.values():
        assert runtime.unavailable(tmp_path / "model", CUDA)
    with pytest.raises(ModelError, match=r"cannot be run on cuda\. pytorch: "):
        runtime_of(tmp_path / "model", CUDA)


def test_folders_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", num_labels=2)
    assert runtime_of(tmp_path / "model").name == "pytorch"
    (tmp_path / "model" / MODEL).touch()
    assert runtime_of(tmp_path / "model").name == "onnxruntime"
    (tmp_path / "model" / "sm90.engine").touch()
    assert TensorRtRuntime().owns(tmp_path / "model")
    assert runtime_of(tmp_path / "model").name == "onnxruntime"  # the engine's own graph, where the engine cannot run
    assert not CountingRuntime().owns(tmp_path / "model")
    (tmp_path / "model" / MARK).touch()
    assert CountingRuntime().owns(tmp_path / "model")
    with pytest.raises(ModelError):
        runtime_of(tmp_path)


@pytest.mark.filterwarnings("ignore")  # of torch.compile, about itself
@pytest.mark.parametrize("variant", [form.name for form in ON_A_GPU])
def test_every_form_of_a_pytorch_model_says_nearly_the_same(variant: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", num_labels=2)
    batch = {name: value.numpy() for name, value in tiny_batch().items() if name != "labels"}
    plain, session = (PyTorch().load(tmp_path / "model", CPU, threads=1, variant=name) for name in ("", variant))
    difference = abs(session(batch) - plain(batch)).max()
    assert session.variant == variant
    assert difference < (0.03 if FORMS[variant].half else 1e-5)
    assert FORMS[variant].half == (difference > 1e-5)
    assert (variant == COMPILED) == FORMS[variant].compiled


def test_a_runner_is_called_once_on_every_shape_before_it_is_timed() -> None:
    called: list[tuple[int, ...]] = []
    feeds = [{"n": torch.zeros(1, length)} for length in (2, 2, 2, 3, 2, 4, 3)]
    time_in_turns({"a": lambda feed: called.append(tuple(feed["n"].shape))}, {"a": feeds}, 1, 60.0, None)
    assert called[:5] == [(1, 2), (1, 2), (1, 2), (1, 3), (1, 4)]
    assert called[5:] == [tuple(feed["n"].shape) for feed in feeds]


def test_a_device_is_idle_before_and_after_what_it_times() -> None:
    steps: list[str] = []

    class Noted(Device):
        name = "noted"

        def synchronize(self) -> None:
            steps.append("wait")

    assert Noted().seconds(lambda: steps.append("act")) >= 0
    assert steps == ["wait", "act", "wait"]


def test_a_session_is_its_three_steps(tmp_path: Path) -> None:
    class Doubling(Session):
        def place(self, inputs: Any) -> Any:
            return inputs["n"]

        def run(self, placed: Any) -> Any:
            return 2 * placed

        def fetch(self, logits: Any) -> Any:
            return logits + 1

    assert Doubling(CPU)({"n": 3}) == 7  # type: ignore[dict-item]


def test_an_onnx_folder_runs_on_the_cpu_and_says_what_it_says_in_pytorch(tmp_path: Path, graphs: Graphs) -> None:
    model = tiny_model()
    shutil.copy(graphs("bert"), tmp_path / MODEL)
    batch = {name: value.numpy() for name, value in tiny_batch().items() if name != "labels"}
    session = runtime_of(tmp_path).load(tmp_path, CPU, threads=1)
    with torch.no_grad():
        expected = model(**tiny_batch()).logits.numpy()
    assert abs(session(batch) - expected).max() < 1e-4
