from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from serving.artifact import Artifact
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.stage import Distill
from compress.errors import ModelError
from compress.export.onnx import Onnx
from compress.export.transformers_js import TransformersJs
from compress.export.triton import Tokenize, Triton
from compress.prune.heads import PruneHeads
from compress.quantize.int8 import DynamicInt8, StaticInt8
from compress.run.predict import predict
from compress.run.recipe import Recipe
from compress.student.base import Student
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.teachers.model import Teacher
from tests.conftest import GOOD, OTHER, save_tiny
from tests.export.triton_server import load

LONG = " ".join([*OTHER, *OTHER, "lovely", *OTHER])
NAMES = ("f1", "exact", "f1_answerable", "exact_unanswerable")


def asked(rows: int, seed: int) -> list[dict[str, Any]]:
    """Return questions about long contexts: the answer is the one good word, and every fifth context has none."""
    generator = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    for row in range(rows):
        words = list(generator.choice(OTHER, int(generator.integers(6, 30))))
        if row % 5:
            words.insert(int(generator.integers(len(words))), str(generator.choice(GOOD)))
        context = " ".join(words)
        found = [word for word in words if word in GOOD]
        answers = [{"text": word, "answer_start": context.index(word)} for word in found]
        made.append({"question": "was the film so", "context": context, "answers": answers})
    return made


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe(folder: Path, **parts: Any) -> Recipe:
    sizes = {"train": (150, 1), "validation": (40, 2), "test": (50, 3)}
    files = {name: write(folder / f"{name}.jsonl", asked(*size)) for name, size in sizes.items()}
    teacher = Teacher(
        model=str(folder / "teacher"), epochs=8, learning_rate=1e-2, batch_size=16, max_tokens=20, least_steps=0,
        early_stopping=0,
    )  # fmt: skip
    made = Recipe(
        recipe="spans", name="run", data=Files(**files), teacher=teacher, student=Bert(layers=2),
        distill=Distill(
            losses={"soft": SoftTargets(), "hard": HardLabels()}, epochs=3, learning_rate=5e-3, batch_size=16
        ),
        prune={"heads": PruneHeads(ratio=0.2, rows=40)},
        quantize={"dynamic": DynamicInt8(), "static": StaticInt8(rows=20)},
        export={"onnx": Onnx(), "transformers_js": TransformersJs(), "triton": Triton(tokenize=Tokenize.client)},
        benchmark=Benchmark(rows=3, batches=[1], tokens=[8], seconds=0.02, labels_only=False, teacher_int8=False),
        output=str(folder / "run"), cache=str(folder / "cache"),
    )  # fmt: skip
    return replace(made, **parts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("asked")
    save_tiny(folder / "teacher")
    recipe(folder).run()
    return folder


def test_a_run_distils_prunes_quantizes_and_reports_spans(finished: Path) -> None:
    report = json.loads((finished / "run" / "report.json").read_text())
    assert report["task"]["kind"] == "spans"
    assert report["task"]["main_metric"] == "f1"
    stages = {stage["name"]: stage["metrics"] for stage in report["stages"]}
    assert list(stages) == ["teacher", "distill", "heads"]
    assert tuple(stages["teacher"]) == NAMES
    assert min(stages["teacher"]["f1"], stages["distill"]["f1"]) > 0.8
    artifacts = {artifact["name"]: artifact for artifact in report["artifacts"]}
    assert sorted(artifacts) == ["dynamic", "onnx", "static", "student", "transformers_js", "triton"]
    assert artifacts["onnx"]["max_abs_difference"] < 1e-3
    assert artifacts["onnx"]["agreement"] == 1
    baselines = {entry["name"]: entry for entry in report["baselines"]}
    assert baselines["constant"]["metrics"]["exact"] == pytest.approx(0.2)
    assert baselines["tfidf"]["kind"].startswith("logistic regression on each word")
    assert report["dataset"]["rows"]["test"] == 50  # questions, not windows


@pytest.mark.parametrize("student", [BiLstm(hidden_size=16), Cnn(widths=[1, 3], filters=20)], ids=["bilstm", "cnn"])
def test_students_without_attention_learn_spans_and_are_exported(finished: Path, student: Student) -> None:
    name = type(student).__name__
    losses = {"soft": SoftTargets(), "hard": HardLabels()}
    distill = Distill(losses=losses, epochs=6, learning_rate=1e-2, batch_size=16)
    made = recipe(
        finished, name=name, output=str(finished / name), student=student, prune={}, export={"onnx": Onnx()},
        quantize={"dynamic": DynamicInt8()}, distill=distill,
    )  # fmt: skip
    report = made.run().report
    assert report.stages[-1].metrics["f1"] > 0.8
    artifacts = {artifact.name: artifact for artifact in report.artifacts}
    assert artifacts["onnx"].agreement == 1
    assert artifacts["dynamic"].metrics["f1"] > 0.8


def test_the_student_and_its_graph_are_read_by_transformers_and_onnx_runtime_under_the_usual_names(
    finished: Path,
) -> None:
    run = finished / "run"
    row = AutoTokenizer.from_pretrained(run / "student")("was the film so", "the plot was good", return_tensors="pt")
    model = AutoModelForQuestionAnswering.from_pretrained(run / "stages" / "01-distill").eval()
    assert type(model).__name__ == "BertForQuestionAnswering"
    pruned = AutoModelForQuestionAnswering.from_pretrained(run / "student").eval()
    with torch.inference_mode():
        expected = pruned(**row)
    for name in ("onnx", "transformers_js"):
        graph = next((run / "artifacts" / name).rglob("model.onnx"))
        session = onnxruntime.InferenceSession(str(graph))
        assert [output.name for output in session.get_outputs()] == ["start_logits", "end_logits"]
        starts, ends = session.run(None, {key: value.numpy() for key, value in row.items()})
        np.testing.assert_allclose(starts, expected.start_logits.numpy(), atol=1e-4)
        np.testing.assert_allclose(ends, expected.end_logits.numpy(), atol=1e-4)


def test_artifacts_answer_in_windows_and_keep_the_threshold(finished: Path) -> None:
    run = finished / "run"
    kept = json.loads((run / "student" / "config.json").read_text())
    for name in ("onnx", "dynamic"):
        config = json.loads((run / "artifacts" / name / "config.json").read_text())
        assert config["null_threshold"] == kept["null_threshold"]
        assert config["unanswerable"] is True
    (answer,) = predict(run / "artifacts" / "onnx", "was the film so", LONG)
    assert answer["answer"] == "lovely"
    assert LONG[answer["start"] : answer["end"]] == "lovely"
    (none,) = predict(run / "student", "was the film so", " ".join(OTHER))
    assert none["answer"] == ""
    with pytest.raises(ModelError, match="pairs of texts"):
        predict(run / "student", "was the film so")


@pytest.mark.parametrize("context", [LONG, "the plot was good", " ".join(OTHER)])
def test_the_served_example_and_the_client_of_triton_answer_as_predict_does(finished: Path, context: str) -> None:
    run = finished / "run" / "artifacts"
    question = "was the  film so"
    (expected,) = predict(run / "onnx", question, context)
    (answer,) = Artifact(run / "onnx", 1)([(question, context)])
    score = answer.pop("score")
    assert score == pytest.approx(expected["score"], abs=1e-5)
    assert answer == {name: expected[name] for name in ("answer", "start", "end") if expected[name] is not None}
    client = load(run / "triton" / "client.py", "client")
    facts = json.loads((run / "triton" / "client.json").read_text())["models"]["onnx"]
    assert facts["outputs"] == ["start_logits", "end_logits"]
    columns, parts = client.windows("was the film so", context, facts)
    starts, ends = onnxruntime.InferenceSession(str(run / "onnx" / "model.onnx")).run(None, columns)
    assert client.answered(parts, context, facts, starts, ends) == (expected["answer"] or "(none)")


def test_the_pages_beside_the_models_name_what_they_give(finished: Path) -> None:
    run = finished / "run"
    card = (run / "student" / "README.md").read_text()
    assert "pipeline_tag: question-answering" in card
    assert 'model(**tokenizer("a question", "a context", truncation="only_second", return_tensors="pt"))' in card
    page = (run / "artifacts" / "transformers_js" / "README.md").read_text()
    assert "const { start_logits, end_logits } = await model(" in page
    assert "start_logits, end_logits = outputs.start_logits, outputs.end_logits" in page


def test_a_finished_head_is_used_as_it_is(finished: Path, tmp_path: Path) -> None:
    given = recipe(tmp_path, teacher=Teacher(model=str(finished / "run" / "stages" / "00-teacher"), max_tokens=20))
    alone = replace(
        given,
        distill=Distill(losses={"soft": SoftTargets()}, epochs=3, learning_rate=5e-3),
        prune={},
        quantize={},
        export={},
    )
    alone.run()
    report, first = (json.loads((folder / "run" / "report.json").read_text()) for folder in (tmp_path, finished))
    assert report["stages"][0]["metrics"] == first["stages"][0]["metrics"]
    assert report["stages"][1]["metrics"]["f1"] > 0.8
