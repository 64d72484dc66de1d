"""Neurons, layers and vocabulary through the whole chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.distill.losses import HiddenStates, Patient, SoftTargets
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.errors import Fault
from compress.known import Known
from compress.models.loading import load_config
from compress.pipeline.stage import Stage
from compress.prune.budget import Budget
from compress.prune.gradual import Curve
from compress.prune.heads import PruneHeads
from compress.prune.layers import PruneLayers
from compress.prune.neurons import PruneNeurons
from compress.prune.rounds import InRounds
from compress.prune.vocabulary import PruneVocabulary
from compress.prune.weights import PruneWeights
from compress.prune.width import PruneWidth
from compress.student.bert import Bert
from compress.student.shared import Shared
from tests.conftest import CUT_EVERYWHERE_NOW, save_tiny, tiny_model
from tests.fresh import run_fresh
from tests.run.test_recipe import recipe

CODE = """
import sys
folder, rows, mode = sys.argv[1:]
if mode == "compress":
    import compress
else:
    sys.modules["compress"] = None
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
trusted = {"trust_remote_code": mode == "shipped"}
tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
model = AutoModelForSequenceClassification.from_pretrained(folder, **trusted).eval()
texts = [line.split("\\t")[1] for line in open(rows).read().splitlines()[1:5]]
with torch.no_grad():
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
print([[value.hex() for value in row] for row in logits.tolist()])
"""


@pytest.mark.parametrize("family", CUT_EVERYWHERE_NOW)
def test_all_prunings_in_a_row_give_a_student_that_runs_everywhere(
    family: str, tmp_path: Path, files: dict[str, Path]
) -> None:
    save_tiny(tmp_path / "teacher", family)
    for name in ("train", "validation"):  # a word that only test rows have goes
        lines = files[name].read_text().splitlines(keepends=True)
        files[name].write_text("".join(line for line in lines if "music" not in line))
    prune = {
        "neurons": PruneNeurons(ratio=0.5, rounds=2, schedule=Curve.cubic, rows=40),
        "heads": PruneHeads(ratio=0.4, importance="fisher", rows=40),
        "layers": PruneLayers(ratio=0.3, rows=40),
        "width": PruneWidth(ratio=0.5, rows=40),
        "budget": Budget(speedup=1.05, rows=40, widths=4, tries=3),
        "vocabulary": PruneVocabulary(),
    }
    state = recipe(files, tmp_path / "teacher", tmp_path, student=Bert(layers=3), prune=prune).run().state
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    stages = {stage["name"]: stage for stage in facts["stages"]}
    assert sum(layer["neurons"] for layer in stages["neurons"]["layers"]) == 48
    assert len({layer["neurons"] for layer in stages["neurons"]["layers"]}) > 1  # uneven
    assert sum(layer["heads"] for layer in stages["heads"]["layers"]) == 7
    assert len(stages["layers"]["layers"]) == 2
    assert stages["vocabulary"]["parameters"] < stages["budget"]["parameters"] <= stages["width"]["parameters"]
    assert stages["budget"]["details"]["predicted_speedup"] >= 1.05
    assert stages["budget"]["details"]["measured_speedup"] > 0
    assert any("test rows are cut" in note for note in stages["vocabulary"]["notes"])
    integers = [given_artifact for given_artifact in facts["artifacts"] if given_artifact["precision"] == "int8"]
    assert len(integers) == 2
    assert all(item["int8_matmuls"][0] > 0 and item["agreement"] > 0.8 for item in integers)
    alone = state.given_student.folder, files["test"]
    logits = [run_fresh(CODE, *alone, mode, folder=tmp_path) for mode in ("compress", "shipped")]
    assert logits[0].startswith("[['")
    assert logits[1].endswith(logits[0])  # after words about code that is trusted
    for artifact in facts["artifacts"]:
        if artifact["precision"] == "fp32":
            assert artifact["agreement"] == 1
            assert artifact["max_abs_difference"] < 1e-4


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        (PruneHeads(importance="activation"), "importance"),
        (PruneNeurons(importance="loss"), "importance"),
        (PruneLayers(importance="magnitude"), "importance"),
        (PruneNeurons(ratio=1.0), "ratio"),
        (PruneLayers(schedule=Curve.cubic), "schedule"),
    ],
)
def test_what_makes_no_sense_is_refused(stage: InRounds, setting: str) -> None:
    assert [fault.setting for fault in stage.faults()] == [setting]


def test_a_corpus_that_is_no_file_is_refused(tmp_path: Path) -> None:
    assert [fault.setting for fault in PruneVocabulary(corpus=str(tmp_path / "none.txt")).faults()] == ["corpus"]


def test_a_list_of_layers_and_a_loss_between_them_outlive_the_layers_that_go(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    """Recovery compares what is left with the teacher's layers that it was mapped to; without pairs a loss rests."""
    save_tiny(tmp_path / "teacher")
    losses = {"soft": SoftTargets(), "patient": Patient(), "hidden": HiddenStates()}
    distill = Distill(losses=losses, layer_map=[1, 2, 4], epochs=1, layer_drop=0.2, teacher_outputs=Keep.disk)
    prune = {"layers": PruneLayers(ratio=0.3, rows=40), "more": PruneLayers(ratio=0.5, rows=40)}
    state = (
        recipe(files, tmp_path / "teacher", tmp_path, student=Bert(layers=3), distill=distill, prune=prune, quantize={})
        .run()
        .state
    )
    maps = [load_config(record.model.folder).teacher_layers for record in state.records[1:]]
    assert maps[0] == [1, 2, 4]
    assert len(maps[1]) == 2
    assert set(maps[1]) < {1, 2, 4}
    assert len(maps[2]) == 1
    assert set(maps[2]) < set(maps[1])
    assert not any("left out" in note for note in state.records[2].notes)
    trained = json.loads((state.given_student.folder / "product.json").read_text())["record"]
    assert any("patient is left out" in note for note in trained["notes"])


def test_factorised_embeddings_keep_their_pieces() -> None:
    teacher = tiny_model().config
    (fault,) = PruneVocabulary().faults(
        Known(student=Shared(layers=2, embedding_size=8).config(teacher), teacher=teacher)
    )
    assert "factorised" in str(fault)
    assert not list(PruneVocabulary().faults(Known(student=Bert(layers=2).config(teacher), teacher=teacher)))


def test_a_vocabulary_changes_no_pattern_of_the_encoders_weights() -> None:
    patterned = PruneWeights(pattern="2:4")
    assert not after(patterned, vocabulary=PruneVocabulary())
    assert after(PruneWeights(pattern="2:4", embeddings=True), vocabulary=PruneVocabulary())
    assert after(patterned, neurons=PruneNeurons())


def after(stage: PruneWeights, **others: Stage) -> list[Fault]:
    """Return what is wrong with a pruning of weights that comes after others."""
    stages = {f"prune.{name}": other for name, other in others.items()}
    return list(stage.faults(Known(stages=stages | {"prune.weights": stage})))


def test_a_row_longer_than_the_student_takes_is_no_condition_for_a_budget() -> None:
    config = tiny_model().config
    (fault,) = Budget(speedup=2, tokens=10**4).faults(Known(student=config))
    assert fault.setting == "tokens"
