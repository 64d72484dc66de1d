"""What only a CUDA machine can show: training, predictions and half precision there, and what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.benchmark.stage import Benchmark
from compress.export.onnx import Onnx
from compress.export.tensorrt import TensorRt
from compress.machine import compute_capability
from compress.models.device import device
from compress.models.evaluate import main_metric, predict_rows
from compress.models.outputs import observe
from compress.onnx.graph import input_names, write_onnx
from compress.runtimes.devices import CPU, CUDA
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.runtimes.pytorch import FORMS, ON_A_GPU, PyTorch
from compress.train import Supervised, Training, fit
from compress.train.settings import Precision
from tests.conftest import EVERY_FAMILY, save_tiny, tiny_batch, tiny_model, tiny_tokenizer
from tests.run.test_recipe import recipe, report
from tests.test_train import TASK, tokens

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]

ROOT = Path(__file__).parent.parent


def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        found = observe(model, {name: value.to(model.device) for name, value in batch.items()}).logits
    return found.float().cpu()


@pytest.mark.parametrize("precision", list(Precision))
def test_training_on_the_gpu_learns_in_every_precision(precision: Precision, tmp_path: Path) -> None:
    model, validation = tiny_model(), tokens(40, 2)
    settings = Training(epochs=6, batch_size=16, learning_rate=5e-3, precision=precision)
    assert not list(settings.faults())
    curve = fit(
        Supervised(model), tokens(), settings, seed=3, folder=tmp_path, title="test",
        validate=lambda: main_metric(model, validation, TASK),
    )  # fmt: skip
    assert model.device.type == "cuda"
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert curve
    assert main_metric(model, validation, TASK)["accuracy"] > 0.85


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_predictions_are_those_of_the_cpu(family: str) -> None:
    batch = tiny_batch(family=family)
    torch.testing.assert_close(
        logits(tiny_model(family).to(device()), batch), logits(tiny_model(family), batch), atol=1e-4, rtol=1e-4
    )


def test_rows_are_predicted_on_the_device_that_the_model_is_on() -> None:
    rows = tokens(40, 2)
    torch.testing.assert_close(
        torch.from_numpy(predict_rows(tiny_model().to(device()), rows)),
        torch.from_numpy(predict_rows(tiny_model(), rows)), atol=1e-4, rtol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_fp16_logits_are_close_to_fp32_whatever_the_padding(family: str, attention: str) -> None:
    batch = tiny_batch(family=family)
    expected = logits(tiny_model(family), batch)
    model = tiny_model(family).to(device(), torch.float16)
    model.set_attn_implementation(attention)
    torch.testing.assert_close(logits(model, batch), expected, atol=0.03, rtol=0.03)
    padded = {
        name: torch.nn.functional.pad(value, (0, 8)) if value.ndim == 2 else value for name, value in batch.items()
    }
    torch.testing.assert_close(logits(model, padded), expected, atol=0.03, rtol=0.03)


def test_the_driver_and_torch_name_the_same_gpu() -> None:
    assert compute_capability() == ".".join(map(str, torch.cuda.get_device_capability(0)))


def test_the_benchmark_measures_what_is_installed(tmp_path: Path) -> None:
    teacher, student = (save_tiny(tmp_path / name, num_labels=3) for name in ("teacher", "student"))
    output, texts = tmp_path / "gpu.json", tmp_path / "texts.txt"
    texts.write_text("a good film\na bad film that is bad\n")
    done = subprocess.run(
        [
            sys.executable, ROOT / "benchmarks" / "gpu.py", "--teacher", teacher, "--student", student, "--texts",
            texts, "--batches", "1", "8", "--tokens", "16", "--seconds", "0.1", "--output", output,
        ],
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = {
        (cell["model"], cell["method"], cell["condition"]): cell for cell in json.loads(output.read_text())["cells"]
    }
    for form in ON_A_GPU:
        for model in ("teacher", "student"):
            for condition in ("real rows", "1 × 16", "8 × 16"):
                cell = cells[model, f"PyTorch {form.name}", condition]
                assert "not_measured" not in cell, cell
                assert {timing["copies"] for timing in cell["latency"]} == {False, True}
            difference = cells[model, f"PyTorch {form.name}", "real rows"]["max_abs_difference"]
            assert difference < (0.03 if form.half else 1e-3)


@pytest.mark.parametrize("variant", [form.name for form in ON_A_GPU])
def test_every_form_of_a_model_runs_on_the_gpu(variant: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", num_labels=3)
    batch = {name: value.numpy() for name, value in tiny_batch().items() if name != "labels"}
    expected = PyTorch().load(folder, CPU, threads=1)(batch)
    with CUDA.active():
        session = PyTorch().load(folder, CUDA, threads=1, variant=variant)
        np.testing.assert_allclose(session(batch), expected, atol=0.03 if FORMS[variant].half else 1e-3)
        placed = session.place(batch)
        assert all(value.is_cuda for value in placed.values())
        assert 0 < CUDA.seconds(lambda: session.run(placed)) < 10


def test_onnx_runtime_runs_on_the_gpu(tmp_path: Path) -> None:
    model = tiny_model(num_labels=3)
    write_onnx(model, input_names(tiny_tokenizer()), tmp_path / "model.onnx")
    if why := OnnxRuntime().unavailable(tmp_path, CUDA):
        pytest.skip(why)
    batch = {name: value.numpy() for name, value in tiny_batch().items() if name != "labels"}
    expected = OnnxRuntime().load(tmp_path, CPU, threads=1)(batch)
    with CUDA.active():
        np.testing.assert_allclose(OnnxRuntime().load(tmp_path, CUDA, threads=1)(batch), expected, atol=1e-3)


def test_a_run_measures_both_devices_and_executes_engines(files: dict[str, Path], tmp_path: Path) -> None:
    recipe(
        files, save_tiny(tmp_path / "teacher"), tmp_path, prune={}, quantize={},
        export={"onnx": Onnx(), "tensorrt": TensorRt(batch=[1, 1, 8], tokens=[2, 8, 32])},
        benchmark=Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, labels_only=False, teacher_int8=False),
    ).run()  # fmt: skip
    found = report(tmp_path)
    assert {timing["device"] for timing in found["stages"][0]["latency"]} == {"cpu", "cuda"}
    runs = {(run["device"], run["variant"]): run for run in found["stages"][0]["runs"]}
    assert runs["cuda", "eager fp32"]["speedup"] == 1
    for form in ON_A_GPU:
        assert "not_measured" not in runs["cuda", form.name]
    engine = next(artifact for artifact in found["artifacts"] if artifact["runtime"] == "tensorrt")
    if "not_measured" not in engine:
        assert engine["agreement"] > 0.95
        assert {timing["device"] for timing in engine["latency"]} == {"cuda"}
