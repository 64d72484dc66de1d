"""Every family in TensorRT: engines of all precisions are built, and their graphs say what the fp32 one says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from compress.data.dataset import Dataset, Split
from compress.export.tensorrt import EnginePrecision, TensorRt
from compress.models.loading import save_model
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.runtimes.devices import CPU
from compress.runtimes.tensorrt import TensorRtRuntime
from compress.tasks.classification import Classification
from tests.conftest import CONFIGS, reviews, tiny_model, tiny_tokenizer

pytest.importorskip("tensorrt_rtx_bindings", reason="the wheels of TensorRT-RTX are not installed")


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_a_family_is_built_in_every_precision_and_its_graphs_agree(family: str, tmp_path: Path) -> None:
    save_model(tiny_model(family), tiny_tokenizer(family), tmp_path / "student")
    labels, texts = zip(*reviews(40, 0), strict=True)
    split = Split(texts, labels=np.array([label == "good" for label in labels], np.int64))
    data = Dataset("reviews", Classification(("bad", "good")), split, split, split)
    (tmp_path / "cache").mkdir()
    state = State.begin(data, Workshop(tmp_path / "cache"), 0, student=Model(tmp_path / "student", "student"))
    built = TensorRt(precisions=list(EnginePrecision), compute_capabilities=["8.6"], rows=8)(state).artifacts
    assert [artifact.precision for artifact in built] == [precision.value for precision in EnginePrecision]

    batch = tiny_tokenizer(family)(list(texts), padding=True, return_token_type_ids=True, return_tensors="np")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # what the graph means, not what this CPU does
    outputs = {}
    for artifact in built:
        assert (artifact.folder / "sm86.engine").is_file()
        session = onnxruntime.InferenceSession(str(artifact.folder / "model.onnx"), options)
        wanted = {part.name for part in session.get_inputs()}
        outputs[artifact.precision] = session.run(None, {name: batch[name] for name in wanted})[0]
        executed = TensorRtRuntime().executed(artifact.folder, CPU)
        assert executed is not None
        assert (executed.int8 > 0) == (artifact.precision == "int8")
    np.testing.assert_allclose(outputs["fp16"], outputs["fp32"], atol=5e-3)
    apart = np.abs(outputs["int8"] - outputs["fp32"])
    assert apart.mean() < 0.1 * outputs["fp32"].std(), (apart.mean(), outputs["fp32"].std())
