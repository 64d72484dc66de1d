"""The benchmark of GPUs, every function of it, on a CPU and a tiny model: what it measures, keeps and says."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from tests.conftest import save_tiny, tiny_model

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gpu() -> Any:
    """The script as a module."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier on disk."""
    return save_tiny(tmp_path_factory.mktemp("gpu") / "student", num_labels=3)


def run(
    gpu: Any, student: Path, output: Path, *more: str, methods: tuple[str, ...] = ("eager fp32", "SDPA fp32")
) -> None:
    gpu.main([
        "--student", str(student), "--shapes", "--device", "cpu", "--batches", "1", "2", "--tokens", "8",
        "--calls", "11", "--output", str(output), "--methods", *methods, *more,
    ])  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.filterwarnings("ignore")  # of torch.compile and bitsandbytes, about themselves
def test_every_method_runs_or_says_why_not(gpu: Any, student: Path, tmp_path: Path) -> None:
    every = tuple({**gpu.QUICK, **gpu.SLOW})
    run(gpu, student, tmp_path / "gpu.jsonl", methods=every)
    found = {one["method"]: one for one in json.loads((tmp_path / "gpu.json").read_text())["results"]}
    assert set(found) == set(every)
    for method in ("eager fp32", "SDPA fp32", "eager fp16", "SDPA fp16", "ONNX Runtime fp32", "ONNX Runtime fp16",
                   "torch.compile fp16"):  # fmt: skip
        one = found[method]
        assert "not_measured" not in one, one
        assert 0 < one["median_ms"] <= one["p90_ms"]
        assert one["with_copies"]["median_ms"] > 0
        assert one["calls"] == 11
        assert one["max_abs_difference"] < (1e-5 if "fp32" in method else 0.02)
    assert found["SDPA fp16, CUDA graph"]["not_measured"] == "CUDA graphs need a CUDA device"
    assert "there is no NVIDIA GPU" in found["TensorRT fp16"]["not_measured"]
    assert found["TensorRT int8"]["not_measured"] == "no int8 graph of it was given (--int8)"
    text = (tmp_path / "gpu.md").read_text()
    assert "### Batch 2, 8 tokens" in text
    assert "SDPA fp16, CUDA graph: not measured: CUDA graphs need a CUDA device" in text


def test_the_same_command_measures_nothing_twice_and_goes_on(gpu: Any, student: Path, tmp_path: Path) -> None:
    output = tmp_path / "gpu.jsonl"
    run(gpu, student, output)
    before = lines(output)
    assert len(before) == 4
    run(gpu, student, output)
    assert lines(output) == before
    output.write_text("".join(json.dumps(one) + "\n" for one in before[:3]) + '{"model": "cut sho')
    run(gpu, student, output)
    kept = [json.loads(line) for line in output.read_text().splitlines() if line.startswith('{"model": "student')]
    assert kept[:3] == before[:3]
    assert [kept[-1][name] for name in ("method", "batch")] == [before[3][name] for name in ("method", "batch")]


def test_another_model_in_the_same_place_is_measured_again(gpu: Any, student: Path, tmp_path: Path) -> None:
    output, place = tmp_path / "gpu.jsonl", tmp_path / "student"
    shutil.copytree(student, place)
    run(gpu, place, output)
    before = lines(output)
    weights = load_file(place / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, place / "model.safetensors", {"format": "pt"})
    run(gpu, place, output)
    assert lines(output)[: len(before)] == before
    assert len(lines(output)) == 2 * len(before)
    assert gpu.fingerprint({"torch": "1"}, [place]) != gpu.fingerprint({"torch": "2"}, [place])


def test_one_failure_loses_nothing_else(gpu: Any, student: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def breaks(subject: Any) -> Callable[..., Any]:
        model = subject.load("sdpa", torch.float32)
        calls = iter(range(1000))

        def run(given: Any) -> Any:
            if next(calls) > 7:
                raise RuntimeError("out of\nmemory")
            return model(**given).logits

        return run

    monkeypatch.setitem(gpu.QUICK, "SDPA fp32", breaks)
    run(gpu, student, tmp_path / "gpu.jsonl")
    found = {(one["method"], one["batch"]): one for one in lines(tmp_path / "gpu.jsonl")}
    for batch in (1, 2):
        assert found["SDPA fp32", batch]["not_measured"] == "RuntimeError: out of memory"
        assert found["eager fp32", batch]["calls"] == 11


def test_results_that_failed_are_tried_again_when_asked(
    gpu: Any, student: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def missing(subject: Any) -> Any:
        raise gpu.NotMeasured("no such package")

    output = tmp_path / "gpu.jsonl"
    with monkeypatch.context() as patch:
        patch.setitem(gpu.QUICK, "SDPA fp32", missing)
        run(gpu, student, output)
    run(gpu, student, output)
    assert "SDPA fp32: not measured: no such package" in (tmp_path / "gpu.md").read_text()
    run(gpu, student, output, "--again")
    assert "not measured" not in (tmp_path / "gpu.md").read_text()


def test_when_time_is_up_what_is_missing_says_so(gpu: Any, student: Path, tmp_path: Path, monkeypatch: Any) -> None:
    subject = gpu.Subject("tiny", CPU, config=tiny_model().config)
    results = gpu.Results(tmp_path / "gpu.jsonl", "cpu")
    done = gpu.measure(
        [subject], results, CPU, batches=[1], tokens=[8], seconds=0, calls=5, methods=["eager fp32", "SDPA fp32"]
    )
    assert not done
    assert not results.known
    monkeypatch.setattr(gpu, "measure", lambda *arguments, **settings: False)
    run(gpu, student, tmp_path / "gpu.jsonl")
    assert "student" in (tmp_path / "gpu.md").read_text()
    assert (tmp_path / "gpu.md").read_text().count("not measured: time was up") == 2


def test_candidates_take_turns_and_are_called_equally_often(gpu: Any) -> None:
    order: list[str] = []

    def candidate(name: str) -> Any:
        there = {"input_ids": torch.zeros(1, 2, dtype=torch.long)}

        def call(given: Any) -> torch.Tensor:
            order.append(name)
            return torch.zeros(1)

        return gpu.Candidate(("m", name, 1, 2), call, there, there, 0.0, [], [])

    both = [candidate("a"), candidate("b")]
    gpu.take_turns(both, gpu.Clock(CPU), 20, 60.0, pytest.fail)
    assert order == ["a", "a", "b", "b"] * 20  # without and with copies
    assert [len(one.times) for one in both] == [len(one.copied) for one in both] == [20, 20]
    hurried = [candidate("a"), candidate("b")]
    gpu.take_turns(hurried, gpu.Clock(CPU), 1000, 0.0, pytest.fail)
    assert [len(one.times) for one in hurried] == [gpu.FEWEST, gpu.FEWEST]


def test_speedup_is_against_the_first_models_reference_in_the_same_turns(gpu: Any) -> None:
    def candidate(method: str, times: list[float]) -> Any:
        return gpu.Candidate(("m", method, 4, 2), lambda given: given, {}, {}, 0.25, times, times)

    found = gpu.figures(candidate("fast", [1.0, 2.0, 3.0]), candidate("eager fp32", [8.0, 8.0, 9.0]))
    assert found["speedup"] == 4
    assert found["rows_per_second"] == 2000
    assert gpu.figures(candidate("fast", [1.0, 2.0, 3.0]), None)["speedup"] is None


def test_rows_longer_than_a_model_takes_are_told(gpu: Any, student: Path, tmp_path: Path) -> None:
    run(gpu, student, tmp_path / "gpu.jsonl", "--tokens", "100")
    assert {one["not_measured"] for one in lines(tmp_path / "gpu.jsonl")} == {"takes at most 64 tokens"}


def test_the_shapes_are_those_of_the_models_they_are_called_after(gpu: Any) -> None:
    millions = {}
    for name, config in gpu.SHAPES.items():
        with torch.device("meta"):
            model = AutoModel.from_config(config())
        millions[name] = round(sum(p.numel() for p in model.parameters()) / 1e6, 1)
    assert millions == {"bert-base": 109.5, "distilbert": 66.4, "tinybert4": 14.4}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(gpu: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.main([])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "no CUDA device" in said.err


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--batches", "0"], "at least 1"),
        (["--student", "nowhere"], "no folder of a model"),
        (["--output", "x.txt"], "must end in .jsonl"),
        (["--output", "no/such/folder/x.jsonl"], "there is no folder no/such/folder"),
        (["--int8", "nowhere.onnx"], "of the --student"),
        (["--shapes"], "no model to measure"),
        (["--methods", "magic"], "invalid choice"),
    ],
)
def test_words_that_cannot_be_are_refused_in_one_line(gpu: Any, words: list[str], rule: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.main(words)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert rule in said
    assert said.count("\n") == 1
