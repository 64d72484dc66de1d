"""Sweeps by Hydra's launchers, in processes that share a cache. These are not part of the development environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.cli.main import main
from tests.conftest import save_tiny, write_files

QUICK = [
    "benchmark.rows=3", "benchmark.batches=[1]", "benchmark.tokens=[8]", "benchmark.seconds=0.02",
    "benchmark.labels_only=false", "benchmark.teacher_int8=false", "max_drop=null",
]  # fmt: skip
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", ["hydra.launcher.timeout_min=30"]),
    "ray": ("hydra_plugins.hydra_ray_launcher", []),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_jobs_in_processes_of_their_own_share_what_is_the_same(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    package, parameters = LAUNCHERS[launcher]
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    files = write_files(tmp_path)
    words = [
        "recipe=soft_targets", "data=files", *(f"data.{name}={path}" for name, path in files.items()),
        f"teacher.model={save_tiny(tmp_path / 'tiny')}", "teacher.epochs=1", "teacher.least_steps=0",
        "teacher.max_tokens=32", "student.layers=2", "distill.epochs=1", "prune=[heads]",
        "prune.heads.ratio=0.25,0.5", *QUICK, f"hydra/launcher={launcher}", *parameters,
    ]  # fmt: skip
    assert main(["run", "-m", *words, "--json"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    results = [event for event in events if event["event"] == "result" and "label" in event]
    assert [event["label"] for event in results] == ["heads.ratio=0.25", "heads.ratio=0.5"]
    reports = [json.loads((Path(event["folder"]) / "report.json").read_text()) for event in results]
    assert [report["settings"]["prune"]["heads"]["ratio"] for report in reports] == [0.25, 0.5]
    for stage in ("teacher", "distill"):
        costs = [cost for report in reports for cost in report["costs"] if cost["stage"] == stage]
        assert costs[0]["products"] == costs[1]["products"] > 0
        assert sum(cost["products"] - cost.get("reused", 0) for cost in costs) == costs[0]["products"]  # made once
    assert not list((tmp_path / "runs" / ".cache").glob("*.partial"))
    assert not list((tmp_path / "runs" / ".cache" / "locks").glob("*.lease"))
