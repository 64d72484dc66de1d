"""`compress export`: a run's student and a classifier from elsewhere, as they are; what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress.benchmark.stage import Benchmark
from compress.cli.export import recipe_for
from compress.cli.main import main
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.quantize.qat import QuantizationAware
from compress.run.check import check
from compress.runtimes.noise import Turns
from tests.conftest import reviews, save_tiny, tiny_model, tiny_tokenizer, write_tsv
from tests.run.test_recipe import recipe

QUICK = ["benchmark.rows=3", "benchmark.batches=[1]", "benchmark.tokens=[8]", "benchmark.seconds=0.02"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose student lost heads, its files, and a classifier that knows the same labels."""
    folder = tmp_path_factory.mktemp("export")
    sizes = {"train": (160, 1), "validation": (40, 2), "test": (60, 3)}
    files = {name: write_tsv(folder / f"{name}.tsv", reviews(*size)) for name, size in sizes.items()}
    quick = Benchmark(rows=3, batches=[1], tokens=[8], seconds=0.02, tfidf=False, labels_only=False, teacher_int8=False)
    recipe(files, save_tiny(folder / "teacher"), folder, quantize={}, export={}, benchmark=quick).run()
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    save_model(tiny_model("distilbert", **labels), tiny_tokenizer("distilbert", max_tokens=24), folder / "other")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, Any]:
    """Return when each file was written; what says that a process uses the cache is renewed all the time."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "in-use" not in path.parts)
    return {str(path): path.stat().st_mtime_ns for path in paths}


def data(world: Path) -> list[str]:
    return ["data=files", f"data.train={world / 'train.tsv'}", f"data.test={world / 'test.tsv'}"]


def test_a_runs_student_is_exported_with_the_runs_teacher_and_data(world: Path, elsewhere: Path) -> None:
    run, before = world / "run", contents(world / "run")
    words = ["quantize=[dynamic]", "export=[onnx]", f"cache={world / 'cache'}", "name=out"]
    assert main(["export", str(run), *words]) == 0
    assert contents(run) == before
    out = elsewhere / "runs" / "export" / "out"
    facts = json.loads((out / "report.json").read_text())
    first = json.loads((run / "report.json").read_text())
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "student"]
    assert facts["stages"][0]["metrics"] == first["stages"][0]["metrics"]
    assert facts["stages"][1]["metrics"] == first["stages"][-1]["metrics"]
    assert facts["stages"][1]["retained"] == first["stages"][-1]["retained"]
    assert [artifact["name"] for artifact in facts["artifacts"]] == ["student", "onnx", "dynamic"]
    assert (out / "artifacts" / "dynamic" / "model.onnx").is_file()
    weights = [load_file(folder / "student" / "model.safetensors") for folder in (run, out)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert load_model(out / "student").config.kept_heads == load_model(run / "student").config.kept_heads
    again = recipe_for(str(out), [*words[:-1], "output=of-the-export"])  # a run of export is a run
    assert again.teacher.model == str((out / "stages" / "00-teacher").resolve())
    assert again.student.model == str((out / "student").resolve())
    assert check(again).data.fingerprint == facts["dataset"]["fingerprint"]
    made = {path.name for path in (world / "cache").iterdir()}
    assert main(["run", f"recipe={out / 'recipe.yaml'}", "output=again"]) == 0  # as its report says
    assert {path.name for path in (world / "cache").iterdir()} == made


@pytest.mark.slow
def test_a_classifier_from_elsewhere_is_exported_and_compared_with_itself(world: Path, elsewhere: Path) -> None:
    before = contents(world / "other")
    words = [*data(world), "quantize=[dynamic,static]", "output=out", *QUICK]
    assert main(["export", str(world / "other"), *words]) == 0
    assert contents(world / "other") == before
    facts = json.loads((elsewhere / "out" / "report.json").read_text())
    (student,) = facts["stages"]
    assert (student["name"], student["retained"], student["agreement"], student["speedup"]) == ("student", 1, 1, 1)
    assert [artifact["name"] for artifact in facts["artifacts"]] == ["student", "onnx", "dynamic", "static"]
    assert load_tokenizer(elsewhere / "out" / "student").model_max_length == 24  # rows as long as it takes them
    first, second = (load_model(folder).state_dict() for folder in (world / "other", elsewhere / "out" / "student"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for written in ("report.html", "report.md", "student/README.md"):
        text = (elsewhere / "out" / written).read_text()
        assert "given student" in text
        assert "against the teacher" not in text
        assert "distilled" not in text
    assert "labels_only" not in {baseline["name"] for baseline in facts["baselines"]}
    again = recipe_for("out", ["quantize=[]", "output=of-the-export"])
    assert again.alone
    assert again.student.model == str((elsewhere / "out" / "student").resolve())
    assert check(again).data.fingerprint == facts["dataset"]["fingerprint"]


@pytest.mark.slow
def test_a_saved_student_can_be_trained_for_int8_too(world: Path) -> None:
    made = recipe_for(str(world / "run"), ["quantize=[qat]", f"cache={world / 'cache'}", "output=out", *QUICK])
    learned = QuantizationAware(epochs=0.5, agreement=0.5)
    state = replace(made, quantize={"qat": learned}).run().state
    assert [artifact.name for artifact in state.artifacts] == ["student", "qat", "qat-control"]


@pytest.mark.slow
def test_a_classifier_without_a_teacher_learns_int8_from_itself(world: Path) -> None:
    words = [*data(world), "quantize=[qat]", "quantize.qat.epochs=0.5", "quantize.qat.agreement=0.5", "export=[]"]
    state = recipe_for(str(world / "other"), [*words, "output=out", *QUICK]).run().state
    assert [artifact.name for artifact in state.artifacts] == ["student", "qat", "qat-control"]
    assert state.teacher == state.student


def test_a_saved_student_can_be_distilled_further(world: Path) -> None:
    made = recipe_for(
        str(world / "run"), ["quantize=[]", "export=[]", f"cache={world / 'cache'}", "output=out", *QUICK]
    )
    state = replace(made, distill=replace(made.distill, epochs=1)).run().state
    assert [record.name for record in state.records] == ["teacher", "student", "distill"]
    before, after = (load_model(record.model.folder).state_dict() for record in state.records[1:])
    assert any(not torch.equal(before[name], after[name]) for name in before)


def broken(world: Path, folder: Path) -> dict[str, list[str]]:
    """Return command lines that must be refused, by what must be said."""
    bare = folder / "bare"
    bare.mkdir()
    encoder, other = folder / "encoder", folder / "other-labels"
    save_model(tiny_model().base_model, tiny_tokenizer(), encoder)
    labels = {"id2label": {0: "yes", 1: "no"}, "label2id": {"yes": 0, "no": 1}}
    save_model(tiny_model(**labels), tiny_tokenizer(), other)
    several = folder / "several-labels"
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    save_model(tiny_model(problem_type="multi_label_classification", **names), tiny_tokenizer(), several)
    unfinished = folder / "unfinished"
    shutil.copytree(world / "run", unfinished)
    shutil.rmtree(unfinished / "student")
    run, rows = str(world / "run"), data(world)
    return {
        "has no config.json": [str(bare), *rows],
        "has no classification head": [str(encoder), *rows],
        "was trained on other labels (yes, no)": [str(other), *rows],
        "was trained for multi label classification, not for one label per row": [str(several), *rows],
        "is not a finished run: student": [str(unfinished)],
        "data: is needed": [str(world / "other")],
        "prune.heads.ratio: describes how a student is made": [run, "prune.heads.ratio=0.5"],
        "Did you mean static?": [run, "quantize=[statik]"],
        "is the run itself": [run, f"output={run}"],
        "there is no such folder": [str(folder / "nowhere" / "at" / "all"), *rows],
    }


def test_what_cannot_be_exported_is_refused_in_words(
    world: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(world)
    for item, words in broken(world, elsewhere).items():
        assert main(["export", *words]) == 2, item
        out = capsys.readouterr().err
        assert item in out
        assert "Traceback" not in out
    assert contents(world) == before
    assert not (elsewhere / "runs").exists()


@pytest.mark.parametrize(
    ("lost", "message"), [("classifier", "lack classifier.bias and 1 more"), ("bert", "lack bert.")]
)
def test_weights_that_are_not_there_are_never_made_up(
    lost: str, message: str, world: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    save_model(tiny_model(**labels), tiny_tokenizer(), elsewhere / "partly")
    weights = elsewhere / "partly" / "model.safetensors"
    held = {name: value for name, value in load_file(weights).items() if not name.startswith(lost)}
    save_file(held, weights, metadata={"format": "pt"})
    teacher = [
        "teacher.model=partly",
        "teacher.max_tokens=24",
        "distill/losses=[soft]",
        *data(world),
        f"cache={elsewhere / 'cache'}",
    ]
    for words in (["export", "partly", *data(world), *QUICK], ["run", *teacher, *QUICK]):
        assert main(words) == 2
        out = capsys.readouterr().err.replace("\n", " ")
        assert message in out
        assert "Traceback" not in out


def test_a_student_that_is_not_trained_must_be_a_saved_one(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "recipe=quickstart", "distill.epochs=0"]) == 2
    assert "leaves the student untrained. Choose student=saved" in capsys.readouterr().err


def test_dry_runs_print_a_recipe_that_composes(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(world / "run"), "--cfg"]) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    from compress.cli import compose

    check(compose.compose(["recipe=printed.yaml"]))


def test_a_runs_timings_are_measured_again_and_nothing_else(
    world: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Turns, "noise", lambda turns, seconds: "")  # however busy the machine is
    run = elsewhere / "run"
    shutil.copytree(world / "run", run)
    before, files, cache = json.loads((run / "report.json").read_text()), contents(run), contents(world / "cache")
    assert main(["bench", "--again", str(run)]) == 0
    assert f"report: {run / 'report.html'}" in capsys.readouterr().out
    after = json.loads((run / "report.json").read_text())
    assert after.pop("timed_again") > before["started"]
    assert "timed_again" not in before
    changed = {name for name, time in contents(run).items() if files[name] != time}
    assert {str(Path(name).relative_to(run)) for name in changed} == {
        ".compress-run.json", "report.html", "report.json", "report.md", "student/README.md",
    }  # fmt: skip
    new = {Path(name) for name, time in contents(world / "cache").items() if cache.get(name) != time}
    made = {path.relative_to(world / "cache").parts[0].rpartition("-")[0] for path in new}
    assert made - {""} == {"latency"}  # beside notes of use and locks
    for old, new in zip(before["stages"] + before["artifacts"], after["stages"] + after["artifacts"], strict=True):
        assert [timing["median_ms"] for timing in old["latency"]] != [timing["median_ms"] for timing in new["latency"]]
        conditions = [
            [(measurement["batch"], measurement["tokens"]) for measurement in entry["latency"]] for entry in (old, new)
        ]
        assert conditions[0] == conditions[1]
        timed = {"latency", "speedup", "rows_per_second"}
        assert {k: v for k, v in old.items() if k not in timed} == {k: v for k, v in new.items() if k not in timed}
    teacher, student = after["stages"][0], after["artifacts"][0]
    assert teacher["speedup"] == 1
    ratio = teacher["latency"][0]["median_ms"] / student["latency"][0]["median_ms"]
    assert student["speedup"] == pytest.approx(ratio)
    assert main(["run", f"recipe={run / 'recipe.yaml'}", f"output={run}"]) == 0  # the same run, repeated
    repeated = json.loads((run / "report.json").read_text())
    for new, kept in zip(after["stages"] + after["artifacts"], repeated["stages"] + repeated["artifacts"], strict=True):
        assert kept["latency"] == new["latency"]


def test_timings_are_not_measured_again_where_they_would_not_belong_to_the_report(
    world: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = elsewhere / "run"
    shutil.copytree(world / "run", run)
    report = (run / "report.json").read_text()

    def refused(words: list[str], sentence: str) -> None:
        assert main(["bench", *words]) == 2
        assert sentence in capsys.readouterr().err

    refused(["--again", str(run), str(world / "run")], "--again takes one run and no other options")
    refused(["--again", "--threads", "2", str(run)], "--again takes one run and no other options")
    refused(["--again", str(run / "student")], "is not a finished run")
    settings = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(settings.replace("seed: 13", "seed: 14"))
    refused(["--again", str(run)], "its data or recipe.yaml has changed since")
    (run / "recipe.yaml").write_text(settings)
    elsewhere_measured = json.loads(report)
    elsewhere_measured["machine"]["cpu"] = "Another"
    (run / "report.json").write_text(json.dumps(elsewhere_measured))
    refused(["--again", str(run)], "was measured on another machine (Another)")


def test_a_run_is_told_as_lines_of_json_from_its_first_stage_to_its_report(
    world: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = world / "run"
    words = ["run", f"recipe={run / 'recipe.yaml'}", f"output={run}"]
    assert main([*words, "--json", "-v"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    report = json.loads((run / "report.json").read_text())
    began = [event["stage"] for event in events if event["event"] == "stage_began"]
    ended = {event["stage"]: event for event in events if event["event"] == "stage_ended"}
    assert [name for name in began if name in {stage["name"] for stage in report["stages"]}] == [
        stage["name"] for stage in report["stages"]
    ]
    assert set(began) == set(ended)
    assert ended["distill"]["reused"]
    assert any(event["event"] == "detail" for event in events)
    assert events[-1]["event"] == "result"
    assert json.loads(Path(events[-1]["report"]).read_text()) == report
    assert main([*words, "--quiet"]) == 0
    out, error = capfd.readouterr()
    assert f"report: {run / 'report.html'}" in out
    assert error == ""
