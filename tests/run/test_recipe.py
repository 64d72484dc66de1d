"""The whole chain on a tiny teacher: what it writes, what it keeps, what it does again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from compress.benchmark.row_answers import read
from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.distill.losses import AttentionScores, HardLabels, HiddenStates, LogitsMSE, SoftTargets
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.errors import RecipeError
from compress.export.onnx import Onnx
from compress.export.transformers_js import TransformersJs
from compress.export.triton import Triton
from compress.models.facts import read_facts
from compress.models.loading import load_config
from compress.prune.heads import PruneHeads
from compress.quantize.int8 import DynamicInt8, StaticInt8
from compress.report.formats import times
from compress.run.bench import bench_paths
from compress.run.predict import predict
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.teachers.model import Teacher
from tests.conftest import EVERY_FAMILY, reviews, save_tiny, write_tsv

QUICK = Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, tfidf=False, labels_only=False, teacher_int8=False)
BASELINES = replace(QUICK, tfidf=True, labels_only=True)


def recipe(files: dict[str, Path], teacher: Path, folder: Path, **changes: Any) -> Recipe:
    """Return a recipe of seconds, with every kind of stage in it, but no baselines."""
    return replace(
        Recipe(
            recipe="tiny",
            name="run",
            data=Files(train=str(files["train"]), validation=str(files["validation"]), test=str(files["test"])),
            teacher=Teacher(
                model=str(teacher), epochs=6, learning_rate=1e-2, batch_size=16, max_tokens=32, least_steps=0
            ),
            student=Bert(layers=2),
            distill=Distill(
                losses={"soft": SoftTargets(), "hidden": HiddenStates(), "attention": AttentionScores()},
                epochs=2, learning_rate=5e-3, batch_size=16, teacher_outputs=Keep.disk,  # not what is faster today
            ),
            prune={"heads": PruneHeads(ratio=0.4, rows=40)},
            quantize={"dynamic": DynamicInt8(), "static": StaticInt8(rows=16)},
            benchmark=QUICK,
            max_drop=None,  # 40 validation rows can show little; tests/run/test_forms.py has enough
            output=str(folder / "run"),
            cache=str(folder / "cache"),
        ),
        **changes,
    )  # fmt: skip


def pairs(rows: int) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Yield pairs of made-up reviews."""
    return zip(reviews(rows, rows), reviews(rows, rows + 1), strict=True)


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text())
    return found


def made(folder: Path) -> set[str]:
    """Return the finished folders of a cache, but for latencies, which a machine's noise must not hide."""
    return {path.name for path in (folder / "cache").iterdir() if (path / "product.json").exists()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with its files beside it."""
    folder = tmp_path_factory.mktemp("chain")
    sizes = {"train": (160, 1), "validation": (40, 2), "test": (60, 3)}
    for name, size in sizes.items():
        write_tsv(folder / f"{name}.tsv", reviews(*size))
    save_tiny(folder / "teacher")
    again(folder).run()
    return folder


WHOLE: dict[str, Any] = {"benchmark": replace(BASELINES, teacher_int8=True), "max_drop": 1.0}


def again(folder: Path, **changes: Any) -> Recipe:
    """Return the recipe of the run in ``folder``."""
    files = {name: folder / f"{name}.tsv" for name in ("train", "validation", "test")}
    return recipe(files, folder / "teacher", folder, **(WHOLE | changes))


def test_a_run_writes_what_it_promises(finished: Path) -> None:
    run = finished / "run"
    assert sorted(p.name for p in run.iterdir()) == [
        ".compress-run.json", "answers.npz", "artifacts", "baselines", "recipe.yaml", "report.html", "report.json",
        "report.md", "stages", "student",
    ]  # fmt: skip
    assert sorted(p.name for p in (run / "stages").iterdir()) == ["00-teacher", "01-distill", "02-heads"]
    assert sorted(p.name for p in (run / "artifacts").iterdir()) == ["dynamic", "onnx", "static"]
    assert sorted(p.name for p in (run / "baselines").iterdir()) == ["teacher_int8", "teacher_onnx"]
    assert not list(run.rglob("*.bin")) + list(run.rglob("*.pt")) + list(run.rglob("*.pkl"))


def test_predict_and_bench_open_every_folder_of_a_run(finished: Path, tmp_path: Path) -> None:
    run = finished / "run"
    (tmp_path / "latest").symlink_to(run)
    folders = [run, tmp_path / "latest", run / "student", *(run / "stages").iterdir(), *(run / "artifacts").iterdir()]
    assert len(folders) == 9
    for folder in folders:
        (answer,) = predict(folder, "a good film")
        assert set(answer["probabilities"]) == {"bad", "good"}
        if folder not in folders[:2]:
            facts = read_facts(folder)
            assert facts is not None
            assert (facts.pairs, facts.longest_row, facts.graph is None) == (
                False, 32, folder.parent.name != "artifacts",
            )  # fmt: skip
            assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    records = bench_paths(folders, [1], None, 1, seconds=0.01)
    assert {timing["tokens"] for record in records for timing in record["latency"]} == {32}
    assert {record["path"] for record in records if record["latency"]} == set(map(str, folders))
    assert not hasattr(load_config(run / "student"), "compress")  # what is made from it says its own


def test_the_order_in_which_exports_are_chosen_changes_nothing() -> None:
    names = ("onnx", "triton", "transformers_js")
    made = {"onnx": Onnx(), "triton": Triton(), "transformers_js": TransformersJs()}
    orders = [
        Recipe(export={name: made[name] for name in order}, quantize={"dynamic": DynamicInt8()}).after_distillation()
        for order in (names, names[::-1], ("transformers_js", "onnx", "triton"))
    ]
    assert orders[0] == orders[1] == orders[2]
    assert [name for _, name, _ in orders[0]][-2:] == ["transformers_js", "triton"]


def test_the_report_holds_every_stage_artifact_and_baseline_with_rows_and_intervals(finished: Path) -> None:
    facts = report(finished)
    assert facts["schema"] == 2
    assert facts["dataset"]["rows"] == {"train": 160, "validation": 40, "test": 60, "unlabelled": 0}
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "distill", "heads"]
    assert [artifact["name"] for artifact in facts["artifacts"]] == ["student", "onnx", "dynamic", "static"]
    assert [baseline["name"] for baseline in facts["baselines"]] == [
        "constant", "tfidf", "teacher_onnx", "teacher_int8", "labels_only",
    ]  # fmt: skip
    for entry in facts["stages"] + facts["artifacts"] + facts["baselines"]:
        low, high = entry["interval"]["accuracy"]
        assert low <= entry["metrics"]["accuracy"] <= high
    teacher, _, heads = facts["stages"]
    assert teacher["retained"] == 1
    assert teacher["speedup"] == 1
    assert heads["parameters"] < facts["stages"][1]["parameters"]
    assert sum(layer["heads"] for layer in heads["layers"]) == 8 - round(0.4 * 8)
    for artifact in facts["artifacts"]:
        assert artifact["latency"][0]["tokens"] == "real"
        assert artifact["latency"][0]["threads"] == 1
        assert artifact["latency"][0]["calls"] >= 5
        assert artifact["agreement"] >= 0.9
    by_name = {artifact["name"]: artifact for artifact in facts["artifacts"]}
    assert by_name["onnx"]["max_abs_difference"] < 1e-4
    for name in ("dynamic", "static"):
        ran, total = by_name[name]["int8_matmuls"]
        assert 0 < ran <= total


def test_few_validation_rows_reject_nothing_and_the_report_says_what_they_cannot_show(finished: Path) -> None:
    facts = report(finished)
    assert "rejected" not in facts
    outcomes = {artifact["name"]: artifact.get("gate", {}).get("outcome") for artifact in facts["artifacts"]}
    assert outcomes == {"student": None, "onnx": "holds", "dynamic": "too few rows", "static": "too few rows"}
    reasons = [reason["detail"] for reason in facts["shipping"]["reasons"] if reason["rule"] == "unproven"]
    told = " ".join(reasons + facts["verdicts"])
    assert told.count("40 validation rows are too few to show that ") >= 1
    assert "at most 1 point of accuracy" in told


def test_every_model_is_timed_against_the_teachers_own_int8(finished: Path) -> None:
    facts = report(finished)
    entries = {entry["name"]: entry for entry in facts["stages"] + facts["artifacts"] + facts["baselines"]}
    own = entries["teacher_int8"]
    assert own["over_int8"] == 1
    assert own["path"] == "baselines/teacher_int8"
    assert own["int8_matmuls"][0] > 0
    assert own["agreement"] >= 0.9
    assert entries["teacher_onnx"]["max_abs_difference"] < 1e-4
    for name in ("teacher", "heads", "onnx", "dynamic", "static", "teacher_onnx"):
        assert entries[name]["over_int8"] == pytest.approx(entries[name]["speedup"] / own["speedup"]), name
    best = entries[facts["recommended"]]
    reasons = [f"{reason['text']}" for reason in facts["shipping"]["reasons"]]
    assert sum("eacher's own int8" in line for line in facts["verdicts"] + reasons) == 1
    assert entries["tfidf"]["over_int8"] > 0
    for written in ("report.html", "report.md", "student/README.md"):
        text = (finished / "run" / written).read_text()
        assert "vs int8" in text
        assert "teacher_int8" in text
    page = (finished / "run" / "report.md").read_text().replace("\\", "")
    assert f"{times(best['over_int8'])} " in page.partition("## Figures")[0]


def test_every_artifact_answers_validation_rows_and_they_choose_the_one_to_recommend(finished: Path) -> None:
    facts = report(finished)
    artifacts = {artifact["name"]: artifact for artifact in facts["artifacts"]}
    for artifact in artifacts.values():
        chosen = artifact["validation"]
        assert chosen["rows"] == facts["dataset"]["rows"]["validation"]
        student = artifacts["student"]["validation"]["metrics"]["accuracy"]
        assert chosen["difference"]["value"] == pytest.approx(chosen["metrics"]["accuracy"] - student)
    kept = {
        name: given_artifact["speedup"]
        for name, given_artifact in artifacts.items()
        if given_artifact["validation"]["difference"]["high"] >= 0
    }
    assert facts["recommended"] == max(kept, key=lambda name: kept[name])


def test_the_report_says_whether_to_ship_and_how_each_class_is_found(finished: Path) -> None:
    facts = report(finished)
    assert facts["shipping"]["decision"] in {"ship with care", "do not ship"}  # 60 test rows are few
    assert "few_rows" in [reason["rule"] for reason in facts["shipping"]["reasons"]]
    assert facts["baselines"][0]["kind"].endswith("the majority class")
    rows = [stage["rows"] for stage in facts["stages"][0]["classes"]]
    assert sum(rows) == 60
    assert max(rows) == round(60 * facts["baselines"][0]["metrics"]["accuracy"])


def test_tfidf_is_timed_beside_the_models_from_text_to_answer(finished: Path) -> None:
    facts = report(finished)
    (timing,) = facts["baselines"][1]["latency"]
    assert (timing["tokens"], timing["tokenization"]) == ("real", True)
    teacher = next(stage for stage in facts["stages"][0]["latency"] if stage.get("tokenization"))
    assert facts["baselines"][1]["speedup"] == pytest.approx(teacher["median_ms"] / timing["median_ms"])


def test_the_report_holds_a_paired_difference_for_every_comparison(finished: Path) -> None:
    facts = report(finished)
    entries = {entry["name"]: entry for entry in facts["stages"] + facts["artifacts"] + facts["baselines"]}
    compared = {name: set(entry.get("differences", {})) for name, entry in entries.items()}
    artifacts = {"student", "onnx", "dynamic", "static"}
    assert compared == {
        "teacher": set(), "distill": {"teacher", "labels_only"}, "heads": {"teacher", "distill"},
        "labels_only": {"teacher"},
        "student": {"teacher"}, **{name: {"teacher", "student"} for name in ("onnx", "dynamic", "static")},
        **{name: {"teacher", *artifacts} for name in ("constant", "tfidf", "teacher_onnx", "teacher_int8")},
    }  # fmt: skip
    for name, entry in entries.items():
        for against, found in entry.get("differences", {}).items():
            sides = [item["metrics"]["accuracy"] for item in (entry, entries[against])]
            assert found["value"] == pytest.approx(sides[0] - sides[1]), (name, against)
            assert found["low"] <= found["value"] <= found["high"]
            assert 0 < found["p"] <= 1
    assert "Who is better, on the same rows" in (finished / "run" / "report.md").read_text()
    why, how = facts["stages"][0]["notes"]
    assert "is trained, because it has no classification head" in why
    assert "epochs: validation accuracy" in how


def test_every_answer_is_kept_beside_the_report_that_it_gives(finished: Path) -> None:
    answers, facts = read(finished / "run"), report(finished)
    assert answers is not None
    places = {group: facts[group] for group in ("stages", "artifacts", "baselines")}
    entries = {f"{group}/{entry['name']}": entry for group, found in places.items() for entry in found}
    assert answers.logits.keys() == {
        name for name in entries if not name.startswith("baselines") or name.endswith("labels_only")
    }
    for name, logits in answers.logits.items():
        right = (logits.argmax(-1) == answers.labels).mean()
        assert right == pytest.approx(entries[name]["metrics"]["accuracy"]), name


def test_the_student_reloads_and_says_what_the_report_says(finished: Path) -> None:
    folder, rows = finished / "run" / "student", (finished / "test.tsv").read_text().splitlines()
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    right = 0
    for row in rows:
        label, text = row.split("\t")
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits
        right += model.config.id2label[int(logits.argmax())] == label
    assert right / len(rows) == pytest.approx(report(finished)["stages"][-1]["metrics"]["accuracy"])


@pytest.mark.parametrize("name", ["onnx", "dynamic", "static"])
def test_an_artifact_runs_with_onnxruntime_and_tokenizers_alone(finished: Path, name: str) -> None:
    folder, rows = finished / "run" / "artifacts" / name, (finished / "test.tsv").read_text().splitlines()
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    labels = json.loads((folder / "config.json").read_text())["id2label"]
    right = 0
    for row in rows:
        label, text = row.split("\t")
        encoded = tokenizer.encode(text)
        feed = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
        logits = session.run(["logits"], {key: np.array([value], dtype=np.int64) for key, value in feed.items()})[0]
        right += labels[str(int(logits.argmax()))] == label
    artifact = next(a for a in report(finished)["artifacts"] if a["name"] == name)
    assert right / len(rows) == pytest.approx(artifact["metrics"]["accuracy"])


def test_the_same_recipe_does_nothing_twice(finished: Path) -> None:
    before = made(finished)
    again(finished).run()
    assert made(finished) == before
    assert all(stage["reused"] for stage in report(finished)["stages"])


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ({"prune": {"heads": PruneHeads(ratio=0.6, rows=40)}}, {"heads", "distill", "onnx", "dynamic", "static"}),
        ({"quantize": {"static": StaticInt8(rows=8)}}, {"static"}),
        ({"benchmark": replace(BASELINES, rows=6)}, set()),
        pytest.param(
            {"student": Bert(layers=1)},
            {"student", "teacher_outputs", "distill", "labels_only", "heads", "onnx", "dynamic", "static"},
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_changed_setting_redoes_what_depends_on_it_and_nothing_else(
    finished: Path, tmp_path: Path, change: dict[str, Any], redone: set[str]
) -> None:
    before = made(finished)
    again(finished, **change, output=str(tmp_path / "other")).run()
    kinds = {name.rpartition("-")[0] for name in made(finished) - before}
    assert kinds - {"logits", "latency"} == redone


def test_all_faults_are_told_at_once_before_anything_is_written(tmp_path: Path, files: dict[str, Path]) -> None:
    wrong = recipe(files, tmp_path / "nowhere", tmp_path, seed=-1)
    wrong.prune = {"heads": PruneHeads(ratio=1.5)}
    wrong.distill = Distill(losses={"soft": SoftTargets(temperature=0.0)})
    with pytest.raises(RecipeError) as told:
        wrong.run()
    assert {"seed", "prune.heads.ratio", "distill.losses.soft.temperature", "teacher.model"} <= {
        fault.setting for fault in told.value.faults
    }
    assert made(tmp_path) == set() if (tmp_path / "cache").exists() else True


@pytest.mark.slow
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_scores_of_pairs_go_through_the_whole_chain_with_every_family(family: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, rows in (("train", 60), ("validation", 16), ("test", 24)):
        made = [(f"{generator.random() * 5:.2f}", first, second) for (_, first), (_, second) in pairs(rows)]
        write_tsv(tmp_path / f"{name}.tsv", made)
    losses = {"mse": LogitsMSE(), "hard": HardLabels(), "attention": AttentionScores(weight=0.1)}
    distill = Distill(losses=losses, epochs=1, learning_rate=1e-3, batch_size=16)
    files = {name: tmp_path / f"{name}.tsv" for name in ("train", "validation", "test")}
    save_tiny(tmp_path / "teacher", family)
    twice = {"first": PruneHeads(ratio=0.2, rows=16), "second": PruneHeads(ratio=0.4, rows=16, rounds=2)}
    recipe(files, tmp_path / "teacher", tmp_path, distill=distill, prune=twice).run()
    facts = report(tmp_path)
    assert facts["task"]["kind"] == "regression"
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "distill", "first", "second"]
    assert all(-1 <= entry["metrics"]["pearson"] <= 1 for entry in facts["stages"] + facts["artifacts"])
    assert [sum(layer["heads"] for layer in stage["layers"]) for stage in facts["stages"]] == [16, 8, 6, 4]


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_that_was_left_alone(finished: Path, tmp_path: Path) -> None:
    """kill -9 at ever later moments; the metrics and the student are those of the undisturbed run."""
    code = (
        "import sys; from pathlib import Path; from tests.run.test_recipe import again\n"
        "import compress.train; folder = Path(sys.argv[1])\n"
        "r = again(folder, output=sys.argv[2], cache=sys.argv[2] + '-cache')\n"
        "r.teacher.checkpoint_seconds = r.distill.checkpoint_seconds = 1e-9\n"
        "r.run()\n"
    )
    command = [sys.executable, "-c", code, str(finished), str(tmp_path / "run")]
    kills, wait = 0, 8.0
    while True:
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + wait
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills, wait = kills + 1, wait + 2.5
    assert process.returncode == 0
    assert kills >= 2
    mine, theirs = report(tmp_path), report(finished)
    for first, second in zip(mine["stages"] + mine["artifacts"], theirs["stages"] + theirs["artifacts"], strict=True):
        assert first["metrics"] == second["metrics"]
    student = [(folder / "run" / "student" / "model.safetensors").read_bytes() for folder in (tmp_path, finished)]
    assert student[0] == student[1]
