"""Searches in several processes, from the command line: a kill, and what is there when the same command runs again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compress.search.study import JOURNAL
from tests.search.test_search import base

pytestmark = pytest.mark.slow
PATIENCE = 600  # seconds for a process to come to something; a broken one is not waited for without end


def command(folder: Path, *words: str) -> list[str]:
    """Return the command of a search of six short trials in two processes, from a tiny teacher."""
    base(folder)
    quick = [
        "benchmark.rows=5", "benchmark.batches=[1]", "benchmark.tokens=[8]", "benchmark.seconds=0.02",
        "benchmark.tfidf=false", "benchmark.labels_only=false", "teacher.least_steps=0", "teacher.epochs=4",
        "teacher.learning_rate=1e-2", "teacher.max_tokens=32", "distill.batch_size=16",
    ]  # fmt: skip
    return [
        sys.executable, "-m", "compress", "search", "data=files", f"data.train={folder / 'train.tsv'}",
        f"data.validation={folder / 'validation.tsv'}", f"data.test={folder / 'test.tsv'}",
        f"teacher.model={folder / 'teacher'}", f"cache={folder / 'cache'}", f"output={folder / 'search'}",
        "target.keep=0.6", "search.trials=6", "search.cycles=2", "search.finalists=2", "search.seeds=2",
        "search.students=[bert,bilstm,cnn]", "search.workers=2", "search.anyway=true", *quick, *words,
    ]  # fmt: skip


def wait_for(what: str, there: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.1)


def children(process: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def trains(process: int) -> bool:
    """Whether it is a process of a search that is running, not one that has ended and was not waited for."""
    try:
        ended = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return not ended and b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_processes_share_the_trials_and_a_killed_search_resumes_with_none_left_over(tmp_path: Path) -> None:
    search, log = tmp_path / "search", tmp_path / "search" / "worker-1.log"
    first = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("the worker", lambda: log.is_file() and "cycle" in log.read_text())
        workers = [child for child in children(first.pid) if trains(child)]
        assert workers
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    wait_for("the worker's end", lambda: not any(map(trains, workers)))
    assert not json.loads((search / "search.json").read_text())["finished"]
    again = subprocess.run(command(tmp_path, "search.workers=1"), capture_output=True, text=True, check=False)
    assert again.returncode in (0, 3), again.stderr
    report = json.loads((search / "search.json").read_text())
    assert report["finished"]
    assert len(report["trials"]) == 6
    assert all(trial["ended"] != "unfinished" for trial in report["trials"])
    settings = [(trial["candidate"], trial["way"], trial["rows"], trial["learning_rate"]) for trial in report["trials"]]
    assert len(set(settings)) == 6
    assert (search / JOURNAL).read_text().endswith("\n")
    assert (search / "run" / "report.html").is_file()


def test_a_search_in_two_processes_ends_with_finalists_of_every_seed(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    report = json.loads((tmp_path / "search" / "search.json").read_text())
    assert len(report["trials"]) == 6
    assert [len(finalist["metrics"]) for finalist in report["finalists"]] == [2, 2]
    assert "Traceback" not in (tmp_path / "search" / "worker-1.log").read_text()
    assert "ended early" not in done.stderr
