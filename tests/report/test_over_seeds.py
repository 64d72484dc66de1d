"""Runs of several seeds are compared by what they kept, or it is said why not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.benchmark.row_answers import FILE, MOST_MIB, RowAnswers, packed, read
from compress.cli.commands.compare import compare_runs
from compress.report.compare import comparison_html
from compress.report.document import load_report
from compress.report.over_seeds import over_seeds
from compress.tasks.classification import Classification
from tests.conftest import save_tiny

LABELS = np.arange(400) % 2
HEAD = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}


def logits(share: float, seed: int) -> Any:
    """Return logits that are right on a share of the rows."""
    right = np.random.default_rng(seed).random(len(LABELS)) < share
    return np.eye(2, dtype=np.float32)[np.where(right, LABELS, 1 - LABELS)]


@pytest.fixture
def runs(tmp_path: Path, report: dict[str, Any]) -> list[str]:
    """Folders of two recipes with three seeds each; what the first one ships is better."""
    folders = []
    for recipe, share in (("good", 0.95), ("bad", 0.75)):
        for seed in (1, 2, 3):
            folder = tmp_path / recipe / str(seed)
            folder.mkdir(parents=True)
            own = copy.deepcopy(report) | {"recipe": recipe, "seed": seed}
            own["settings"] = {**own["settings"], "seed": seed, "recipe": recipe, "output": str(folder)}
            own["task"] = {"kind": "classification", "labels": ["bad", "good"], "main_metric": "accuracy"}
            (folder / "report.json").write_text(json.dumps(own))
            ships = load_report(folder).best
            assert ships is not None
            kept = {f"artifacts/{ships.name}": logits(share, seed), "baselines/labels_only": logits(0.75, 10 + seed)}
            content = packed(RowAnswers("these rows", LABELS, kept))
            assert content is not None
            (folder / FILE).write_bytes(content)
            save_tiny(folder / "student", **HEAD)
            folders.append(str(folder))
    return folders


def test_two_recipes_are_compared_with_labels_alone_and_with_each_other(
    runs: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    reports = [(run, load_report(Path(run))) for run in runs]
    found, why = over_seeds(reports)
    assert (len(found), why) == (3, "")
    assert [difference.difference.clear for difference in found] == [True, False, True]
    assert all(difference.seeds == 3 for difference in found)
    ours, theirs = ([read(Path(run)).logits for run in side] for side in (runs[:3], runs[3:]))  # type: ignore[union-attr]
    sides = [[next(iter(item.values())) for item in side] for side in (ours, theirs)]
    expected = Classification(("bad", "good")).difference_over_seeds(*sides, LABELS)
    assert found[2].difference == expected
    page = comparison_html(reports)
    compare_runs(runs, None)
    for told in (page, capsys.readouterr().out):
        assert "Over seeds" in told
        assert told.count("labels alone") == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: (run / FILE).unlink(), "not every run kept its answers"),
        (lambda run: (run / FILE).write_bytes(b"PK"), "not every run kept its answers"),
        (lambda run: (run / FILE).write_bytes(packed(RowAnswers("other", LABELS, {}))), "not tested on the same rows"),
    ],
)
def test_what_cannot_be_compared_is_said(runs: list[str], change: Callable[[Path], Any], why: str) -> None:
    change(Path(runs[0]))
    found, sentences = over_seeds([(run, load_report(Path(run))) for run in runs])
    assert found == []
    assert why in sentences


def test_runs_of_one_seed_are_not_compared_over_seeds(runs: list[str]) -> None:
    assert over_seeds([(run, load_report(Path(run))) for run in (runs[0], runs[3])]) == ([], "")


def test_too_many_answers_are_not_kept() -> None:
    rows = MOST_MIB * 2**20 // 4 + 1
    assert packed(RowAnswers("rows", LABELS, {"artifacts/student": np.zeros(rows, np.float32)})) is None
