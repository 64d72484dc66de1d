"""The benchmark of GPUs, on this machine's CPU and tiny models: what it measures, in which order, and what it keeps."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.runtimes.devices import CPU
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.runtimes.pytorch import ON_A_GPU, PyTorch
from tests.conftest import save_tiny

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
WAYS = ["teacher, PyTorch fp32", "student, ONNX Runtime fp16", "student, ONNX Runtime fp32", "student, PyTorch fp32"]


@pytest.fixture(scope="module")
def gpu() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, a student and texts."""
    place = tmp_path_factory.mktemp("gpu")
    save_tiny(place / "teacher", num_labels=3)
    save_tiny(place / "student", num_labels=3, seed=1)
    (place / "texts.txt").write_text("a good film\n\nthe end\na bad film that is bad\n")
    return place


def words(folder: Path, output: Path, *more: str) -> list[str]:
    return [
        "--teacher", str(folder / "teacher"), "--student", str(folder / "student"),
        "--texts", str(folder / "texts.txt"), "--device", "cpu", "--batches", "1", "2", "--tokens", "8",
        "--seconds", "0.01", "--output", str(output), *more,
    ]  # fmt: skip


def cells(output: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the cells by way and condition, in the order in which they were measured."""
    written = json.loads(output.read_text())["cells"]
    return {(f"{cell['model']}, {cell['method']}", cell["condition"]): cell for cell in written}


def test_every_way_is_scored_and_timed_or_says_why_not(gpu: Any, folder: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "gpu.json"
    gpu.main(words(folder, output))
    measured = {key: cell for key, cell in cells(output).items() if "TensorRT" not in key[0]}
    conditions = ["real rows", "1 × 8", "2 × 8"]  # real rows of all ways come before the grid
    assert list(measured) == [(way, condition) for condition in conditions for way in WAYS]
    for (way, condition), cell in measured.items():
        assert "not_measured" not in cell
        assert {timing["device"] for timing in cell["latency"]} == {"cpu"}
        assert cell["speedup"] > 0
        if condition == "real rows":
            assert cell["agreement"] == 1
            assert cell["max_abs_difference"] < (0.02 if "fp16" in way else 1e-4)
            assert (cell["max_abs_difference"] > 1e-6) == ("fp16" in way)
    assert measured[WAYS[0], "2 × 8"]["speedup"] == 1
    written = json.loads(output.read_text())
    assert written["command"].startswith("python benchmarks/gpu.py --teacher ")
    assert written["rows"] == 3
    assert "torch" in written["versions"]
    assert written["machine"]["cores"] > 0
    table = output.with_suffix(".md").read_text()
    assert capsys.readouterr().out.strip() == table.strip()
    assert table.count("| student | ONNX Runtime fp16 |") == 3
    assert "### 2 × 8 tokens" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="an engine can be built here")
def test_what_cannot_run_says_why_once(gpu: Any, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8" / "model.onnx").touch()
    gpu.main(words(folder, output, "--int8", str(tmp_path / "int8")))
    engines = {way: condition for way, condition in cells(output) if "TensorRT" in way}
    assert engines == {"student, TensorRT fp16": "real rows", "student, TensorRT int8": "real rows"}
    assert output.with_suffix(".md").read_text().count("there is no NVIDIA GPU here to build for") == 1


def test_the_most_informative_ways_come_first_on_a_gpu(
    gpu: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PyTorch, "variants", lambda *_: ON_A_GPU)  # as on a GPU
    teacher, student = (gpu.Subject.of(name, folder / name, ["a film"]) for name in ("teacher", "student"))
    folders = gpu.Folders(student, tmp_path, (2, 8))
    labels = [method.label for method in gpu.methods(teacher, student, tmp_path, CPU, folders)]
    assert labels[:7] == [
        "teacher, PyTorch eager fp32", "student, PyTorch SDPA fp16", "student, PyTorch torch.compile fp16",
        "student, ONNX Runtime fp16", "student, ONNX Runtime fp32", "student, TensorRT fp16", "student, TensorRT int8",
    ]  # fmt: skip
    assert len(set(labels)) == len(labels) == 2 * len(ON_A_GPU) + 4
    assert not list(tmp_path.iterdir())  # graphs and engines are made when they are needed


def test_when_the_time_is_up_no_cell_is_started_and_the_rest_is_named(
    gpu: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, clock = tmp_path / "gpu.json", [0.0]

    def cell(*arguments: Any) -> None:
        clock[0] += 100
        original(*arguments)

    original = gpu.Bench._cell
    monkeypatch.setattr(gpu.Bench, "_cell", cell)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    gpu.main(words(folder, output, "--budget", "250"))
    assert list(cells(output)) == [(way, "real rows") for way in WAYS[:2]]
    left_out = json.loads(output.read_text())["left_out"]
    assert left_out[0] == "student, ONNX Runtime fp32, real rows"
    assert "teacher, PyTorch fp32, 2 × 8" in left_out
    assert "Left out, for lack of time (250 s)" in output.with_suffix(".md").read_text()


def test_a_killed_run_keeps_every_finished_cell(
    gpu: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, load = tmp_path / "gpu.json", OnnxRuntime.load

    def killed(runtime: OnnxRuntime, path: Path, *arguments: Any, **settings: Any) -> Any:
        if path.name.endswith("fp32"):
            raise KeyboardInterrupt
        return load(runtime, path, *arguments, **settings)

    monkeypatch.setattr(OnnxRuntime, "load", killed)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(words(folder, output))
    assert list(cells(output)) == [(way, "real rows") for way in WAYS[:2]]
    assert "| student | ONNX Runtime fp16 |" in output.with_suffix(".md").read_text()


def test_one_failure_loses_nothing_else(
    gpu: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **settings: Any) -> Any:
        raise MemoryError("out of\nmemory")

    output = tmp_path / "gpu.json"
    monkeypatch.setattr(OnnxRuntime, "load", broken)
    gpu.main(words(folder, output))
    measured = cells(output)
    for way in WAYS[1:3]:
        assert measured[way, "real rows"]["not_measured"] == "MemoryError: out of memory"
        assert (way, "1 × 8") not in measured
    assert measured[WAYS[3], "2 × 8"]["speedup"] > 0
    assert output.with_suffix(".md").read_text().count("out of memory") == 1


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        (["--batches", "0"], "at least 1"),
        (["--budget", "0"], "--budget must be above 0"),
        (["--student", "nowhere"], "nowhere"),
        (["--output", "x.txt"], "must end in .json"),
        (["--int8", "nowhere"], "there is no model.onnx in it"),
        (["--texts", "nowhere"], "there is no such file"),
        (["--tokens", "100"], "take at most 32 tokens"),
        (["--device", "gpu"], "'gpu' is not a device"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    gpu: Any, folder: Path, tmp_path: Path, more: list[str], rule: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.main(words(folder, tmp_path / "gpu.json", *more))
    assert stopped.value.code == 2
    refused = capsys.readouterr().err
    assert rule in refused
    assert refused.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(gpu: Any, folder: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.main(words(folder, tmp_path / "gpu.json", "--device", "cuda"))
    assert stopped.value.code == 2
    assert "this machine has no device cuda" in capsys.readouterr().err
