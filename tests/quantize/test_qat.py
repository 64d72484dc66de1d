"""Quantization-aware training through a whole run: a student pruned unevenly, its int8 file, what is done again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compress.benchmark.stage import Benchmark
from compress.distill.losses import HiddenStates, SoftTargets
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.errors import ModelError, RecipeError
from compress.families.forms.fake_quantization import ranges
from compress.known import Known
from compress.pipeline.artifact import Trained
from compress.pipeline.model import Model
from compress.quantize.int8 import WeightBits
from compress.quantize.qat import QuantizationAware
from compress.run.recipe import Recipe
from compress.settings import all_faults
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from tests.conftest import reviews, save_tiny, tiny_model, write_tsv
from tests.run.test_recipe import made, recipe, report

QAT = QuantizationAware(epochs=2, learning_rate=2e-3, weight_bits=WeightBits.eight)


def tiny(folder: Path, **changes: Any) -> Recipe:
    files = {name: folder / f"{name}.tsv" for name in ("train", "validation", "test")}
    distill = Distill(
        losses={"soft": SoftTargets(), "hidden": HiddenStates()}, epochs=2, learning_rate=5e-3, batch_size=16,
        teacher_outputs=Keep.disk,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "student": Bert(layers=1),
        "distill": distill,
        "quantize": {"learned": QAT},
        "export": {},
        "benchmark": Benchmark(
            rows=3, batches=[1], tokens=[8], seconds=0.02, tfidf=False, labels_only=False, teacher_int8=False
        ),
    }
    return replace(recipe(files, folder / "teacher", folder), **settings | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with its files beside it."""
    folder = tmp_path_factory.mktemp("qat")
    for name, rows, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 400, 3)):
        write_tsv(folder / f"{name}.tsv", reviews(rows, seed))
    save_tiny(folder / "teacher")
    tiny(folder).run()
    return folder


def test_the_file_says_what_was_trained_and_its_products_run_in_int8(finished: Path) -> None:
    facts = report(finished)
    artifact = next(given_artifact for given_artifact in facts["artifacts"] if given_artifact["name"] == "learned")
    assert artifact["trained"]["rows"] == 400
    assert artifact["trained"]["agreement"] >= 0.995
    assert artifact["trained"]["max_abs_difference"] < 0.5
    assert artifact["int8_matmuls"] == [8, 10]  # six of a layer, pooler and classifier; not Q·Kᵀ and P·V
    assert artifact["metrics"]["accuracy"] >= facts["stages"][-1]["metrics"]["accuracy"] - 0.05
    assert any("weights in 8 bits" in note for note in artifact["notes"])
    assert any("agrees with the trained model on 100.00% of 400 test rows" in note for note in artifact["notes"])


def test_the_trained_model_stands_in_the_run_and_says_what_the_file_says(finished: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(finished / "run" / "stages" / "learned").eval()
    assert model.config.model_type == "compress_qat_bert"
    assert (finished / "run" / "artifacts" / "learned" / "model.onnx").is_file()
    student = AutoModelForSequenceClassification.from_pretrained(finished / "run" / "student")
    assert student.config.model_type == "compress_bert"
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert not torch.equal(model.state_dict()[name], student.state_dict()[name])  # it went on learning
    folders = sorted((finished / "cache").glob("qat_training-*"))
    record = json.loads((folders[0] / "product.json").read_text())["record"]
    losses = [point["soft"] for point in record["curves"] if "soft" in point]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_a_second_run_does_nothing_again_and_a_changed_setting_only_its_own_work(finished: Path) -> None:
    before = made(finished)
    tiny(finished).run()
    assert made(finished) == before
    changed = {"learned": replace(QAT, decay=0.9)}
    tiny(finished, quantize=changed, output=str(finished / "other")).run()
    kinds = {name.rpartition("-")[0] for name in made(finished) - before}
    assert kinds - {"logits", "latency"} == {"qat_start", "qat_training", "qat_calibrated", "qat"}


def test_the_control_is_the_same_int8_after_as_many_steps_in_fp32(finished: Path) -> None:
    control = next(artifact for artifact in report(finished)["artifacts"] if artifact["name"] == "learned-control")
    assert control["int8_matmuls"] == [8, 10]
    assert control["trained"]["agreement"] >= 0.995
    assert any(note.startswith("trained in fp32 for as many steps, then int8") for note in control["notes"])
    kept = {
        kind: json.loads(next((finished / "cache").glob(f"{kind}-*/product.json")).read_text())["record"]["curves"]
        for kind in ("qat_training", "qat_control")
    }
    steps = {kind: [point["step"] for point in curve] for kind, curve in kept.items()}
    assert steps["qat_control"] == steps["qat_training"]
    rates = {kind: [point.get("learning_rate") for point in curve] for kind, curve in kept.items()}
    assert rates["qat_control"] == rates["qat_training"]
    model = AutoModelForSequenceClassification.from_pretrained(finished / "run" / "stages" / "learned-control")
    learned = AutoModelForSequenceClassification.from_pretrained(finished / "run" / "stages" / "learned")
    assert model.config.fake_quantization == learned.config.fake_quantization
    assert all(int(moving.batches) > 0 and moving.high > moving.low for moving in ranges(model))


def test_a_control_can_be_left_out(finished: Path) -> None:
    state = tiny(finished).run().state
    alone = replace(QAT, control=False)(replace(state, artifacts=()))
    assert [artifact.name for artifact in alone.artifacts] == ["qat"]


def test_a_file_that_agrees_on_too_few_rows_is_an_error(finished: Path) -> None:
    recipe = tiny(finished)
    state = recipe.run().state
    (untrained, *_) = (finished / "cache").glob("qat_start-*")  # its ranges have seen nothing
    learned = next(artifact for artifact in state.artifacts if artifact.name == "learned")
    other = replace(learned, trained=Trained(Model(untrained, "untrained"), QAT.agreement))
    with pytest.raises(ModelError, match=r"learned: agrees with the trained model on .* of the test rows, below"):
        recipe.benchmark.measure(replace(state, artifacts=(other,)), None, [])


def test_what_cannot_be_is_refused_before_any_work(finished: Path) -> None:
    other = tiny(finished, student=BiLstm(), distill=Distill(losses={"soft": SoftTargets()}), prune={})
    with pytest.raises(RecipeError, match="cannot train a student of type compress_bilstm with fake quantization"):
        other.run()
    wrong = QuantizationAware(epochs=0, learning_rate=-1, decay=1, agreement=1.2)
    assert {fault.setting for fault in all_faults(wrong)} == {"epochs", "learning_rate", "decay", "agreement"}


def test_a_student_whose_projections_read_positions_too_is_refused_before_work() -> None:
    (fault,) = QuantizationAware().faults(Known(student=tiny_model("deberta-v2").config))
    assert "cannot train a student of type deberta-v2 with fake quantization" in str(fault)
    assert "modernbert" in str(fault)
    assert str(fault).count("deberta-v2") == 1
    assert not list(QuantizationAware().faults(Known(student=tiny_model("modernbert").config)))
