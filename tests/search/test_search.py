"""Searches of seconds: from a target to a finished run, what needs no training, interruptions, bad words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.cli.search import searching
from compress.distill.stage import Distill
from compress.errors import MissingPackageError, RecipeError
from compress.models.auto import from_config
from compress.models.loading import save_model
from compress.pipeline.state import State
from compress.run.recipe import Recipe
from compress.search import search as module
from compress.search.search import Searched, search
from compress.search.settings import Search, SearchTarget
from compress.search.speeds import Speed, Speeds, deciding
from compress.search.trainings import Goal, Trainings
from compress.search.verdict import unreachable
from compress.student.bert import Bert
from tests.conftest import CONFIGS, tiny_tokenizer, write_files
from tests.run.test_recipe import recipe

SHORT = Search(trials=3, cycles=2, finalists=1, seeds=2, students=["bert", "static"], anyway=True)


def base(folder: Path, **changes: Any) -> Recipe:
    """Return what all trials of a search share: a tiny teacher and rows, in ``folder``."""
    if not (folder / "teacher").exists():
        config = CONFIGS["bert"]()
        config.num_hidden_layers = 1
        save_model(from_config(config).base_model, tiny_tokenizer(), folder / "teacher")
        write_files(folder)
    files = {name: folder / f"{name}.tsv" for name in ("train", "validation", "test")}
    distill = Distill(epochs=1, batch_size=16)
    whole = recipe(files, folder / "teacher", folder, distill=distill, output=str(folder / "search"), name=None)
    assert whole.student == Bert(layers=2)  # more than the teacher has: a search asks nothing of the recipe's student
    return replace(whole, **changes)


def searched(folder: Path, target: SearchTarget, settings: Search = SHORT, **changes: Any) -> Searched:
    return search(base(folder, **changes), target, settings, "compress search …")


def written(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "search" / "search.json").read_text())
    return found


@pytest.fixture(scope="module", autouse=True)
def small_tables() -> Iterator[None]:
    """Give static students a small table of bigrams."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("compress.search.candidates.BIGRAMS", 100)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search for the fastest student that keeps 60 %."""
    folder = tmp_path_factory.mktemp("search")
    searched(folder, SearchTarget(keep=0.6))
    return folder


def test_a_search_ends_in_a_run_of_the_student_that_it_found(finished: Path) -> None:
    found = written(finished)
    assert found["finished"]
    assert len(found["trials"]) == 3
    assert {trial["candidate"] for trial in found["trials"]} == {"1 layer", "static"}
    winner, (finalist,) = found["winner"], found["finalists"]
    assert finalist["chosen"]
    assert len(finalist["metrics"]) == 2
    report = json.loads((finished / "search" / "run" / "report.json").read_text())
    assert winner["artifact"] == report["recommended"]
    best = next(artifact for artifact in report["artifacts"] if artifact["name"] == winner["artifact"])
    assert winner["metric"] == best["metrics"]["accuracy"]
    assert found["met"] is (winner["keeps"] >= 0.6)
    assert winner["keeps_at_least"] <= winner["keeps"]


def test_the_recipe_of_the_student_repeats_its_training(finished: Path) -> None:
    """Trial, finalist and run are the same products of the cache."""
    report = json.loads((finished / "search" / "run" / "report.json").read_text())
    assert all(stage["reused"] for stage in report["stages"])
    found = written(finished)
    trial = next(trial for trial in found["trials"] if trial["number"] == found["finalists"][0]["number"])
    assert found["finalists"][0]["metrics"][0] == trial["metrics"][-1]
    assert report["settings"]["distill"]["cycles"] == len(trial["metrics"])
    assert report["settings"]["distill"]["learning_rate"] == trial["learning_rate"]


def test_every_form_of_every_candidate_is_timed_before_training(finished: Path) -> None:
    forms = written(finished)["forms"]
    assert [(form["name"], form["form"]) for form in forms] == [
        (name, form)
        for name in ("teacher", "1 layer", "static")
        for form in ("eager", "onnx", "dynamic")
        if form != "eager" or name == "teacher"
    ]
    eager = forms[0]["ms"]
    for form in forms:
        assert form["ms"] > 0
        assert form["speedup"] == pytest.approx(eager / form["ms"])


def test_the_page_has_every_trial_and_no_script(finished: Path) -> None:
    page = (finished / "search" / "search.html").read_text()
    assert "<script" not in page
    assert "60.0% of the teacher" in page
    assert page.count("<svg") >= 2
    for trial in written(finished)["trials"]:
        assert trial["candidate"] in page


def test_what_needs_no_training_comes_first_and_ends_the_search(finished: Path, tmp_path: Path) -> None:
    found = searched(finished, SearchTarget(keep=0.5), replace(SHORT, anyway=False), output=str(tmp_path / "search"))
    assert found.run is None
    assert found.report.met
    assert "without any training" in found.report.verdict
    assert not found.report.trials
    assert {free.form for free in found.report.free} == {"onnx", "dynamic"}


def test_a_speed_that_nothing_has_is_refused_with_the_nearest(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"target.latency_ms = 1e-06: no candidate is that fast. The fastest"):
        searched(finished, SearchTarget(latency_ms=1e-6), output=str(tmp_path / "search"))
    assert not (tmp_path / "search" / "run").exists()
    with pytest.raises(RecipeError, match=r"target.speedup = 1000000.0: no candidate is that fast"):
        searched(finished, SearchTarget(speedup=1e6), output=str(tmp_path / "search"))  # the folder is free again


def test_an_interrupted_search_resumes_where_it_was(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = written(finished), str(tmp_path / "search")
    trained, calls = Trainings.trained, []

    def interrupted(work: Any, *given: Any) -> State:
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return trained(work, *given)

    monkeypatch.setattr(Trainings, "trained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searched(finished, SearchTarget(keep=0.6), output=output)
    half = written(tmp_path)
    assert not half["finished"]
    assert 0 < len(half["trials"]) < 3
    searched(finished, SearchTarget(keep=0.6), output=output)
    after = written(tmp_path)
    assert after["finished"]
    assert len(after["trials"]) == len(whole["trials"])
    kept = [trial for trial in half["trials"] if trial["ended"] != "unfinished"]
    assert [trial for trial in after["trials"] if trial["number"] in {done["number"] for done in kept}] == kept


def test_a_finished_search_is_returned_as_it_is(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module._Work, "carry_out")
    again = searched(finished, SearchTarget(keep=0.6))
    assert again.report.met is written(finished)["met"]
    assert again.run is not None
    assert again.run.folder == finished / "search" / "run"


def test_what_was_foretold_is_compared_with_every_trained_candidate(finished: Path) -> None:
    found = written(finished)
    forms = {(form["name"], form["form"]): form["ms"] for form in found["forms"]}
    assert {form["name"] for form in found["compared"]} == {trial["candidate"] for trial in found["trials"]}
    for form in found["compared"]:
        assert form["predicted_ms"] == forms[form["name"], form["form"]]
        assert form["ms"] > 0
        assert form["off"] > -1
    assert "Foretold and measured latency" in (finished / "search" / "search.html").read_text()


def test_a_candidate_that_cannot_be_exported_is_left_out_with_the_reason(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("compress.search.speeds.DynamicInt8.artifact", broken)
    with pytest.raises(RecipeError, match="none of them fits this task and teacher"):
        searched(finished, SearchTarget(speedup=2), replace(SHORT, students=["static"]), output=str(tmp_path / "s"))
    assert json.loads((tmp_path / "s" / "search.json").read_text())["left_out"] == {
        "static": "it cannot be exported: RuntimeError: no such operator."
    }


def test_a_folder_of_something_else_is_left_alone(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(RecipeError, match="is not empty and holds no search"):
        searched(finished, SearchTarget(keep=0.6), output=str(tmp_path / "mine"))
    with pytest.raises(RecipeError, match="holds another search"):
        searched(finished, SearchTarget(keep=0.7))


def test_only_what_is_fast_enough_is_tried_and_only_accuracy_decides_between_it() -> None:
    assert Goal(None, 10.0).value(0.8, 3.0) == 0.8
    value = Goal(0.9, 10.0).value
    assert value(0.89, 1.0) < value(0.9, 5.0) < value(0.95, 4.0)
    assert value(0.8, 1.0) < value(0.85, 9.0) < 0


def test_noisy_timings_are_compared_by_the_quietest_turns_of_all() -> None:
    calm, noisy = {"median_ms": 5.0, "quiet_ms": 4.0}, {"median_ms": 9.0, "quiet_ms": 4.5, "noise": "9 tasks"}
    assert deciding([calm, calm]) == "median_ms"
    assert deciding([calm, noisy, {"not_measured": "no memory"}]) == "quiet_ms"
    assert deciding([noisy, {"median_ms": 1.0}]) == "median_ms"  # which not all have


def test_a_target_of_speed_is_the_stricter_of_both() -> None:
    assert SearchTarget(latency_ms=3).most_ms(10) == 3
    assert SearchTarget(speedup=5).most_ms(10) == 2
    assert SearchTarget(latency_ms=3, speedup=5).most_ms(10) == 2
    assert SearchTarget(keep=0.9).most_ms(10) == float("inf")
    speeds = Speeds((Speed("teacher", "eager", 9, 1), Speed("a", "onnx", 3, 1), Speed("a", "dynamic", 2, 1)))
    assert speeds.teacher_ms == 9
    assert speeds.fastest("a").form == "dynamic"
    assert SearchTarget(latency_ms=3, speedup=5).strictest(10) == "speedup"
    fault = unreachable(SearchTarget(latency_ms=1.5, speedup=9), speeds, ["a"])
    assert str(fault).startswith(
        "target.speedup = 9: no candidate is that fast. The fastest, a as int8 ONNX, takes 2 ms"
    )


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["search.trails=3"], {"search.trails"}),
        (["target.keep=much"], {"target.keep"}),
        (["target.keep"], {"target.keep"}),
        (["search.students=bert"], {"search.students"}),
        (["student=bert", "target.keep=0.9"], {"student"}),
        (["quantize=[static]", "distill/losses=[mse]"], {"quantize", "distill/losses"}),
    ],
)
def test_words_that_a_search_cannot_take_are_all_named(words: list[str], settings: set[str]) -> None:
    with pytest.raises(RecipeError) as told:
        searching(words)
    assert {fault.setting for fault in told.value.faults} == settings


def test_targets_and_counts_that_cannot_be_are_refused_before_work(finished: Path) -> None:
    with pytest.raises(RecipeError) as told:
        searched(finished, SearchTarget(), replace(SHORT, trials=0, students=["lstm"]))
    assert {fault.setting for fault in told.value.faults} == {"target", "search.trials", "search.students"}
    with pytest.raises(RecipeError, match=r"target.keep = 99: is a share"):
        searched(finished, SearchTarget(keep=99))


def test_the_words_of_a_search_are_typed() -> None:
    recipe, target, settings = searching(
        ["target.speedup=10", "target.keep=1e-1", "search.students=[bert,cnn]", "search.minutes=null", "seed=7"]
    )
    assert (target.speedup, target.keep) == (10.0, 0.1)
    assert (settings.students, settings.minutes, recipe.seed) == (["bert", "cnn"], None, 7)


def test_a_missing_package_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'compress-encoders\[search\]'"):
        searched(tmp_path, SearchTarget(keep=0.6))
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "search").exists()
