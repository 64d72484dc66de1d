"""Artifacts that lose too much: put aside with what cost most, replaced by a gentler form, and never recommended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from compress.cli.main import main
from compress.data.dataset import Split
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model, save_model
from compress.models.tokens import tokenize
from compress.run.predict import artifact_folder
from tests.conftest import reviews, tiny_model, tiny_tokenizer, write_tsv

ROWS = {"train": (60, 1), "validation": (320, 2), "test": (60, 3)}
LABELS = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
QUICK = ["benchmark.rows=3", "benchmark.batches=[1]", "benchmark.tokens=[8]", "benchmark.seconds=0.02"]
HUGE = 1e5


def spoil(model: PreTrainedModel) -> None:
    """Change no answer in fp32, and all of them in int8.

    One unit of the pooler becomes 0 whatever it is given, and the weights on it so large that beside them all other
    weights of the classifier are rounded to 0.
    """
    with torch.no_grad():
        model.bert.pooler.dense.weight[0] = 0
        model.bert.pooler.dense.bias[0] = 0
        model.classifier.weight[:, 0] = HUGE


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that int8 destroys, and rows that it answers rightly."""
    folder = tmp_path_factory.mktemp("forms")
    model, tokenizer = tiny_model(seed=1, **LABELS), tiny_tokenizer()
    spoil(model)
    texts = {name: [text for _, text in reviews(*size)] for name, size in ROWS.items()}
    first = logits(model, texts["train"])
    with torch.no_grad():  # both labels occur
        model.classifier.bias[0] -= float(np.median(first[:, 0] - first[:, 1]))
    for name, given in texts.items():
        answers = logits(model, given).argmax(-1)
        write_tsv(
            folder / f"{name}.tsv", [(("bad", "good")[answer], t) for answer, t in zip(answers, given, strict=True)]
        )
    save_model(model, tokenizer, folder / "model")
    return folder


def logits(model: PreTrainedModel, texts: list[str]) -> Any:
    return predict_rows(model, tokenize(Split(tuple(texts)), tiny_tokenizer(), 32), None)


def export(world: Path, output: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code of an export of the classifier, and its report."""
    given = [f"data.{name}={world / name}.tsv" for name in ROWS]
    code = main(
        ["export", str(world / "model"), "data=files", *given, *QUICK, f"output={output}", f"cache={world / 'cache'}",
         "benchmark.tfidf=false", *words]
    )  # fmt: skip
    return code, json.loads((output / "report.json").read_text())


def test_int8_that_outliers_destroy_is_rejected_and_the_form_without_them_takes_its_place(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = export(world, tmp_path / "out", "quantize=[dynamic]", "export=[onnx,transformers_js]")
    assert code == 0
    (rejected,) = report["rejected"]
    assert (rejected["name"], rejected["path"], rejected["instead"]) == (
        "dynamic", "rejected/dynamic", "dynamic-mixed",
    )  # fmt: skip
    gate = rejected["gate"]
    assert (gate["outcome"], gate["rows"], gate["max_drop"]) == ("exceeds", 320, 1.0)
    assert gate["drop"] > 20
    assert gate["bound"] > gate["drop"]
    assert rejected["costs"][0]["part"] == "head"
    assert rejected["costs"][0]["drop"] == pytest.approx(gate["drop"] / 100, abs=0.03)
    kept = {artifact["name"]: artifact for artifact in report["artifacts"]}
    assert list(kept) == ["student", "onnx", "dynamic-mixed", "transformers_js"]
    assert kept["onnx"]["gate"]["outcome"] == "holds"
    assert kept["dynamic-mixed"]["gate"]["outcome"] != "exceeds"
    floats = {part["part"]: part.get("floats", []) for part in kept["dynamic-mixed"]["int8_parts"]}
    assert len(floats["head"]) == 2
    assert kept["dynamic-mixed"]["int8_matmuls"][0] > 0
    assert report["recommended"] != "dynamic"
    reason = report["shipping"]["reasons"][0]
    assert reason["detail"].startswith(f"Accuracy falls by {gate['drop']:.3g} points on 320")
    assert "The costliest parts, each alone in int8: head (" in reason["detail"]
    assert "Kept in its place: dynamic-mixed." in reason["detail"]
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("SHIP WITH CARE • dynamic is rejected. Accuracy falls by ")
    folder = tmp_path / "out" / "rejected" / "dynamic"
    assert (folder / "model.onnx").is_file()
    assert "do not use" in (folder / "REJECTED.md").read_text()
    assert not (tmp_path / "out" / "artifacts" / "dynamic").exists()
    assert artifact_folder(tmp_path / "out").name == report["recommended"]
    gathered = tmp_path / "out" / "artifacts" / "transformers_js" / "onnx" / "model_quantized.onnx"
    assert gathered.read_bytes() == (tmp_path / "out" / "artifacts" / "dynamic-mixed" / "model.onnx").read_bytes()
    for name in ("report.html", "report.md"):
        assert "<h2>Rejected</h2>" in (text := (tmp_path / "out" / name).read_text()) or "## Rejected" in text


def test_an_export_of_which_nothing_passes_writes_its_report_and_exits_with_3(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = export(
        world, tmp_path / "out", "quantize=[]", "export=[onnx,transformers_js]", "export.onnx.tolerance=1e-30"
    )
    assert code == 3
    assert [artifact["name"] for artifact in report["artifacts"]] == ["student"]
    (rejected,) = report["rejected"]
    assert "more than export.onnx.tolerance = 1e-30" in rejected["gate"]["reason"]
    assert report["skipped"][0].startswith("transformers_js was not written: ")
    assert capsys.readouterr().out.split("\n")[1:3][0].strip() == "DO NOT SHIP"
    assert report["shipping"]["reasons"][0]["rule"] == "nothing_passes"
    assert (tmp_path / "out" / "rejected" / "onnx" / "model.onnx").is_file()


def test_without_a_limit_everything_is_kept_and_nothing_is_judged(world: Path, tmp_path: Path) -> None:
    code, report = export(world, tmp_path / "out", "quantize=[dynamic]", "export=[]", "max_drop=null")
    assert code == 0
    assert "rejected" not in report
    assert [artifact["name"] for artifact in report["artifacts"]] == ["student", "dynamic"]
    assert not any("gate" in artifact for artifact in report["artifacts"])


@pytest.mark.slow
def test_where_every_part_is_destroyed_all_forms_of_int8_are_rejected_and_fp32_is_kept(
    world: Path, tmp_path: Path
) -> None:
    """Every linear layer has such a weight, so that sparing single layers cannot help, nor can measured ranges."""
    model = load_model(world / "model")
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.intermediate.dense.weight[0] = 0
            layer.intermediate.dense.bias[0] = 0  # GELU of 0 is 0
            layer.output.dense.weight[:, 0] = HUGE
    other = tmp_path / "world"
    other.mkdir()
    save_model(model, tiny_tokenizer(), other / "model")
    for name in ROWS:
        rows = [line.split("\t")[1] for line in (world / f"{name}.tsv").read_text().splitlines()]
        answers = logits(model, rows).argmax(-1)
        write_tsv(other / f"{name}.tsv", [(("bad", "good")[a], text) for a, text in zip(answers, rows, strict=True)])
    code, report = export(other, tmp_path / "out", "quantize=[dynamic]", "export=[]")
    assert code == 0
    kept = [artifact["name"] for artifact in report["artifacts"]]
    gone = {form["name"]: form["instead"] for form in report["rejected"]}
    assert set(kept[1:]) == set(gone.values())
    assert len(kept) == 2
    assert next(iter(gone)) == "dynamic"
    if kept[1] == "dynamic-fp32":
        assert "dynamic-static" in gone
    assert report["recommended"] == kept[1]
