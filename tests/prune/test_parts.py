"""Neurons, layers and vocabulary through the whole chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.prune.gradual import Rounds
from compress.prune.heads import PruneHeads
from compress.prune.importance import Importance
from compress.prune.layers import PruneLayers
from compress.prune.neurons import PruneNeurons
from compress.prune.rounds import InRounds
from compress.prune.vocabulary import PruneVocabulary
from compress.student.bert import Bert
from tests.conftest import FAMILY_NAMES, save_tiny
from tests.test_recipe import recipe


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_all_prunings_in_a_row_give_a_student_that_runs_everywhere(
    family: str, tmp_path: Path, files: dict[str, Path]
) -> None:
    save_tiny(tmp_path / "teacher", family)
    for name in ("train", "validation"):  # a word that only test rows have goes
        lines = files[name].read_text().splitlines(keepends=True)
        files[name].write_text("".join(line for line in lines if "music" not in line))
    prune = {
        "neurons": PruneNeurons(ratio=0.5, steps=2, rounds=Rounds.cubic, rows=40),
        "heads": PruneHeads(ratio=0.4, importance=Importance.taylor, rows=40),
        "layers": PruneLayers(ratio=0.3, rows=40),
        "vocabulary": PruneVocabulary(),
    }
    recipe(files, tmp_path / "teacher", tmp_path, student=Bert(layers=3), prune=prune).run()
    said = json.loads((tmp_path / "run" / "report.json").read_text())
    stages = {stage["name"]: stage for stage in said["stages"]}
    assert sum(layer["neurons"] for layer in stages["neurons"]["layers"]) == 48
    assert len({layer["neurons"] for layer in stages["neurons"]["layers"]}) > 1  # uneven
    assert sum(layer["heads"] for layer in stages["heads"]["layers"]) == 7
    assert len(stages["layers"]["layers"]) == 2
    assert stages["vocabulary"]["parameters"] < stages["layers"]["parameters"]
    for artifact in said["artifacts"]:
        if artifact["precision"] == "fp32":
            assert artifact["agreement"] == 1
            assert artifact["max_abs_difference"] < 1e-4


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        (PruneHeads(importance=Importance.activation), "importance"),
        (PruneNeurons(importance=Importance.loss), "importance"),
        (PruneLayers(importance=Importance.magnitude), "importance"),
        (PruneNeurons(ratio=1.0), "ratio"),
        (PruneLayers(rounds=Rounds.cubic), "rounds"),
    ],
)
def test_what_makes_no_sense_is_refused(stage: InRounds, setting: str) -> None:
    assert [fault.setting for fault in stage.faults()] == [setting]


def test_a_corpus_that_is_no_file_is_refused(tmp_path: Path) -> None:
    assert [fault.setting for fault in PruneVocabulary(corpus=str(tmp_path / "none.txt")).faults()] == ["corpus"]
