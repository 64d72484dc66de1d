"""Curves, figures and the table of models in each tracker; what is refused before any work.

Their packages are not part of the development environment: tests that write to them run where they are installed.
"""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.benchmark.stage import Benchmark
from compress.cli.main import main
from compress.errors import CompressError
from compress.run.recipe import Recipe
from compress.settings import all_faults
from compress.train import trackers
from compress.train.trackers import tracked
from tests.conftest import reviews, save_tiny, write_tsv
from tests.run.test_recipe import recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    names = ("TENSORBOARD_LOGGING_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
    for name in (*names, "WANDB_PROJECT", "WANDB_MODE", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def tiny(folder: Path, **changes: Any) -> Recipe:
    """Return a recipe whose teacher is trained and whose student is distilled."""
    sizes = {"train": (64, 1), "validation": (30, 2), "test": (30, 3)}
    files = {name: write_tsv(folder / f"{name}.tsv", reviews(*size)) for name, size in sizes.items()}
    quick = Benchmark(rows=3, batches=[1], tokens=[8], seconds=0.02, tfidf=False, labels_only=False, teacher_int8=False)
    given = recipe(files, save_tiny(folder / "teacher"), folder, prune={}, quantize={}, export={}, benchmark=quick)
    return replace(given, teacher=replace(given.teacher, epochs=2), distill=replace(given.distill, epochs=2), **changes)


def test_a_tracker_that_is_not_known_or_not_installed_is_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    (unknown, missing) = all_faults(Recipe(report_to=["tensorbord", "mlflow"]))
    assert str(unknown) == "report_to = 'tensorbord': is not a tracker. Known: tensorboard, mlflow, trackio, wandb."
    assert str(missing) == (
        "report_to = 'mlflow': needs the package mlflow. Install it: pip install 'compress-encoders[mlflow]'."
    )
    assert main(["run", "report_to=[tensorboard]"]) == 2
    assert "needs the package tensorboard. Install it: pip install 'compress-encoders[tensorboard]'" in (
        capsys.readouterr().err
    )


def test_each_tracker_is_told_how_the_run_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    class Noted(trackers.TensorBoard):
        def close(self, status: str) -> None:
            ended.append(status)

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Noted)
    for error in (None, KeyboardInterrupt, ValueError):
        try:
            with tracked(["tensorboard", "tensorboard"], "recipe", "run") as current:
                assert trackers.trackers() == current
                assert len(current) == 1
                if error:
                    raise error
        except (KeyboardInterrupt, ValueError):
            pass
        assert trackers.trackers() == []
    assert ended == ["FINISHED", "KILLED", "FAILED"]


def test_a_tracker_that_cannot_begin_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: str) -> None:
        raise ConnectionError("nobody answers\nat all")

    monkeypatch.setattr(trackers.TensorBoard, "__init__", away)
    words = "tensorboard: cannot begin a run there: ConnectionError: nobody answers at all."
    with pytest.raises(CompressError, match=words), tracked(["tensorboard"], "recipe", "run"):
        pytest.fail("began")
    assert trackers.trackers() == []


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_the_curves_of_every_training_the_figures_and_the_table(elsewhere: Path) -> None:
    pytest.importorskip("tensorboard")
    given = tiny(elsewhere, report_to=["tensorboard"], name="first", recipe="tried")
    run = given.run()
    place = elsewhere / "runs" / "tensorboard" / "tried"
    teacher, distill = run.report.stages[0], run.report.stages[-1]
    trained = {path.name: scalars(path) for path in (place / "first").iterdir() if path.is_dir()}
    for stage, title in ((teacher, "teacher"), (distill, "distill")):
        found = next(values for name, values in trained.items() if name.startswith(title))["train/loss"]
        assert found == [(point["step"], pytest.approx(point["loss"])) for point in stage.curves if "loss" in point]
    figures = scalars(place / "first")
    assert figures["stage/distill/accuracy"] == [(0, pytest.approx(distill.metrics["accuracy"]))]
    again = replace(given, name="second").run()  # everything is in the cache
    assert all(stage.reused for stage in again.report.stages)
    replayed = scalars(place / "second" / "distill")["train/loss"]
    assert replayed == [(point["step"], pytest.approx(point["loss"])) for point in distill.curves if "loss" in point]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_mlflow_has_a_run_with_a_run_for_each_training(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (elsewhere / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = tiny(elsewhere, report_to=["mlflow"], name="first", recipe="tried").run()
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("tried")
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    whole = runs.pop("first")
    assert all(child.data.tags["mlflow.parentRunId"] == whole.info.run_id for child in runs.values())
    assert whole.info.status == "FINISHED"
    distill = run.report.stages[-1]
    assert whole.data.metrics["stage/distill/accuracy"] == pytest.approx(distill.metrics["accuracy"])
    (child,) = [found for name, found in runs.items() if name.startswith("distill")]
    history = {(point.step, point.value) for point in client.get_metric_history(child.info.run_id, "loss")}
    assert history == {(int(point["step"]), point["loss"]) for point in distill.curves if "loss" in point}
    table = Path(client.download_artifacts(whole.info.run_id, "models.md", str(elsewhere))).read_text()
    assert "distill" in table
    assert "| --- |" in table


TRACKIO = """
import json, sys
from dataclasses import replace
from pathlib import Path
from tests.train.test_trackers import tiny

if __name__ == "__main__":
    given = tiny(Path(sys.argv[1]), report_to=["trackio"], recipe="tried")
    distill = [replace(given, name=name).run().report.stages[-1] for name in ("first", "second")][-1]
    print(json.dumps([distill.curves, distill.metrics["accuracy"]]))
"""


@pytest.mark.slow
def test_trackio_has_a_run_for_each_training_and_says_nothing(elsewhere: Path) -> None:
    pytest.importorskip("trackio")
    store = elsewhere / "trackio"
    done = subprocess.run(  # where it writes is decided when it is imported
        [sys.executable, "-c", TRACKIO, str(elsewhere)],
        env=os.environ | {"TRACKIO_DIR": str(store), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Trackio" not in done.stdout
    curves, accuracy = json.loads(done.stdout.splitlines()[-1])
    with closing(sqlite3.connect(store / "tried.db")) as database:
        rows = database.execute("SELECT run_name, metrics FROM metrics ORDER BY rowid").fetchall()
    logged: dict[str, list[dict[str, Any]]] = {}
    for run, metrics in rows:
        logged.setdefault(run, []).append(json.loads(metrics))
    expected = [(point["step"], pytest.approx(point["loss"])) for point in curves if "loss" in point]
    for name in ("first", "second"):  # while it was trained, and from the cache
        found = logged[f"{name}, distill"]
        assert [
            (point["train/global_step"], point["train/loss"]) for point in found if "train/loss" in point
        ] == expected
        (whole,) = logged[name]
        assert whole["stage/distill/accuracy"] == pytest.approx(accuracy)
        assert "| --- |" in json.dumps(whole["models"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_wandb_has_a_run_for_each_training_in_the_runs_group(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    given = tiny(elsewhere, report_to=["wandb"], name="first", recipe="tried")
    distill = given.run().report.stages[-1]
    assert wandb.run is None
    replace(given, name="second").run()  # everything is in the cache
    expected = [(point["step"], pytest.approx(point["loss"])) for point in distill.curves if "loss" in point]
    logged = {}
    for path in (elsewhere / "wandb").glob("offline-run-*/*.wandb"):
        run, history, summary = offline(path)
        assert run.project == "tried"
        logged[run.run_group, run.display_name] = history, summary
    assert {name for _, name in logged} == {"teacher", "distill", "first", "second"}
    for name in ("first", "second"):
        history, _ = logged[name, "distill"]
        found = [(point["train/global_step"], point["train/loss"]) for point in history if "train/loss" in point]
        assert found == expected
        _, summary = logged[name, name]
        assert summary["stage/distill/accuracy"] == pytest.approx(distill.metrics["accuracy"])


def offline(path: Path) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """Return the run, the history and the summary of a file that Weights & Biases wrote offline."""
    from wandb.proto import wandb_internal_pb2

    run: Any = None
    history, summary = [], {}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
        elif kind == "history":
            history.append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            summary |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
    return run, history, summary


def records(log: bytes) -> Iterator[bytes]:
    """Yield what a log in LevelDB's format holds, behind a header of seven bytes."""
    place, whole = 7, b""
    while place + 7 <= len(log):
        if (left := 32768 - place % 32768) < 7:  # the rest of a block has no room for a record
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", log[place : place + 7])
        whole += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def _key(item: Any) -> str:
    return item.key or "/".join(item.nested_key)
