"""Timings in the cache: which are used again, and which are measured once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.benchmark import ways
from compress.benchmark.scores import ScoredRows
from compress.benchmark.ways import Timing, latencies
from compress.data.dataset import Dataset, Split
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.runtimes.devices import CPU
from compress.tasks.classification import Classification

TIMING = Timing(threads=1, rows=1, batches=[1], tokens=[8], seconds=0.1)
QUIET, NOISY = {}, {"noise": "9.0 tasks shared 2 cores"}


@pytest.mark.parametrize(
    ("measured", "again", "shown"),
    [
        ([[QUIET, QUIET]], [False, False, False], [1, 1, 1]),
        ([[NOISY, NOISY], [NOISY, QUIET], [QUIET, QUIET]], [False, False, False, False], [1, 2, 3, 3]),
        ([[NOISY, QUIET], [NOISY, NOISY], [QUIET, QUIET]], [False, False, False, False], [1, 1, 3, 3]),
        ([[QUIET, QUIET], [QUIET, QUIET]], [False, True, False], [1, 2, 2]),
        ([[QUIET, QUIET], [NOISY, QUIET], [NOISY, NOISY]], [False, True, False], [1, 2, 2]),
    ],
)
def test_noisy_timings_are_measured_once_more_when_they_are_found_and_the_quieter_ones_stay(
    measured: list[list[dict[str, Any]]], again: list[bool], shown: list[int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "cache").mkdir()
    split = Split(("a", "b"))
    data = Dataset("texts", Classification(("bad", "good")), split, split, split)
    state, given = State.begin(data, Workshop(tmp_path / "cache"), 0), iter(enumerate(measured, start=1))

    def made_up(*_: Any) -> dict[str, list[dict[str, Any]]]:
        number, noises = next(given)
        return {"stages/teacher": [{"median_ms": number, **noise} for noise in noises]}

    monkeypatch.setattr(ways, "_time_ways", made_up)
    for asked, number in zip(again, shown, strict=True):
        found = latencies(CPU, {}, ScoredRows(state), state, TIMING, {}, again=asked)
        assert [entry["median_ms"] for entry in found["stages/teacher"]] == [number] * 2
    assert next(given, None) is None


def test_timings_are_known_again_by_what_is_run_and_not_by_where_it_is(tmp_path: Path) -> None:
    for name, weights in (("cache", b"1"), ("run", b"1"), ("other", b"2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.onnx").write_bytes(weights)
        (folder / "config.json").write_text(name)
    (tmp_path / "run" / "README.md").write_text("a card")
    cache, run, other = (ways._contents(tmp_path / name) for name in ("cache", "run", "other"))
    assert cache == run != other
