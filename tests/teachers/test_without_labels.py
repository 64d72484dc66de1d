"""No training row has a label: the teacher's answers take their place, and the report says what cannot be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.stage import Distill
from compress.errors import DataError, RecipeError
from compress.models.loading import save_model
from compress.pipeline.answers import OfModel
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.student.bilstm import BiLstm
from compress.student.saved import Saved
from compress.student.words import Pieces, WordStart
from compress.tasks.choice import TaskChoice
from compress.teachers.answers import AnswerFile
from compress.teachers.endpoint import Endpoint
from compress.teachers.model import Teacher
from compress.teachers.standing_in import with_answers_as_labels
from tests.conftest import reviews, tiny_model, tiny_tokenizer, write_tsv
from tests.run.test_recipe import report

ROWS = 120


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts without labels, labelled test rows, and answers of which one in ten is wrong."""
    folder = tmp_path_factory.mktemp("unlabelled")
    texts = reviews(ROWS, 1)
    (folder / "texts.txt").write_text("".join(f"{text}\n" for _, text in texts))
    write_tsv(folder / "test.tsv", test := reviews(60, 2))
    with (folder / "answers.jsonl").open("w") as file:
        for place, (label, text) in enumerate([*texts, *test]):
            share = 0.9 if (label == "good") != (place % 10 == 0) else 0.1
            file.write(json.dumps({"text": text, "probabilities": [share, 1 - share]}) + "\n")
    save_model(
        tiny_model(id2label={0: "good", 1: "bad"}, label2id={"good": 0, "bad": 1}), tiny_tokenizer(), folder / "teacher"
    )
    return folder


def unlabelled(world: Path, tmp_path: Path, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "recipe": "answers", "name": "run", "output": str(tmp_path / "run"), "cache": str(world / "cache"),
        "data": Files(unlabelled=str(world / "texts.txt"), test=str(world / "test.tsv")), "export": {},
        "teacher": AnswerFile(file=str(world / "answers.jsonl"), classes=["good", "bad"]),
        "student": BiLstm(tokens=Pieces.words, start=WordStart.random, min_count=1),
        "distill": Distill(losses={"soft": SoftTargets(), "hard": HardLabels()}, epochs=4, learning_rate=1e-2),
        "benchmark": Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, teacher_int8=False),
    }  # fmt: skip
    return Recipe(**settings | changes)


def test_answers_and_texts_suffice_and_a_labelled_test_split_is_measured(world: Path, tmp_path: Path) -> None:
    run = unlabelled(world, tmp_path).run()
    found = report(tmp_path)
    assert found["dataset"]["answered"] == ["training", "validation"]
    assert found["task"]["labels"] == ["good", "bad"]
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert stages["teacher"]["metrics"]["accuracy"] == pytest.approx(0.9)  # as the labels of the test rows have it
    assert stages["distill"]["metrics"]["accuracy"] > 0.85
    data = run.state.data
    assert run.state.answers is not None
    logits = run.state.answers.logits(data.train, run.state.workshop)
    np.testing.assert_array_equal(data.train.known_labels, logits.argmax(-1))
    (twin,) = [entry for entry in found["baselines"] if entry["name"] == "labels_only"]
    assert twin["kind"].endswith("trained on the teacher's bare answers alone")
    page = (tmp_path / "run" / "report.md").read_text()
    assert "No training row has a label: the teacher's answers take the place of labels" in page
    assert "No test row has a label" not in page


def test_a_teacher_with_weights_labels_what_has_no_label(world: Path, tmp_path: Path) -> None:
    data = Files(unlabelled=str(world / "texts.txt"))
    teacher = Teacher(model=str(world / "teacher"), max_tokens=32)
    recipe = unlabelled(world, tmp_path, data=data, teacher=teacher, student=Saved(model=str(world / "teacher")))
    checked = check(recipe)
    assert checked.data.answered == ("training", "validation", "test")
    assert any("no row has a label by which its answers could be judged" in str(model) for model in checked.models)
    assert "cannot be known. Label some rows: data.test." in " ".join(checked.data.notes)
    workshop = Workshop(world / "cache")
    state = with_answers_as_labels(teacher(State.begin(data=checked.rows, workshop=workshop, seed=13)))
    assert state.data.task.output_names == ("good", "bad")
    for rows in (state.data.train, state.data.validation, state.data.test):
        logits = OfModel(state.given_teacher).logits(rows, workshop)
        np.testing.assert_array_equal(rows.known_labels, logits.argmax(-1))
    assert sum(map(len, (state.data.train, state.data.validation, state.data.test))) == ROWS


def test_what_cannot_be_done_without_labels_is_refused(world: Path, tmp_path: Path) -> None:
    def refused(expected: str, **changes: Any) -> None:
        with pytest.raises(RecipeError, match=expected):
            check(unlabelled(world, tmp_path, **changes))

    bare = AnswerFile(file=str(world / "answers.jsonl"))
    refused(r"no row has a label, and there must be two classes or more.*teacher\.classes", teacher=bare)
    refused("has 2 numbers for 3 classes", teacher=AnswerFile(file=bare.file, classes=["good", "bad", "fair"]))
    refused("the task regression needs labelled rows: its labels are", task=TaskChoice.of("regression"))
    refused("class_weights.* no training row has a label", task=TaskChoice(class_weights="balanced"))
    save_model(tiny_model().base_model, tiny_tokenizer(), tmp_path / "encoder")
    encoder = Teacher(model=str(tmp_path / "encoder"), max_tokens=32)
    refused("must be fine-tuned .*, and no row has a label", teacher=encoder)
    asked = Endpoint(url="http://localhost:9/v1", model="m", words={"good": ["yes"], "bad": ["no"]})
    names = Files(unlabelled=str(world / "texts.txt")).load("auto", 1, asked.class_names).task.output_names
    assert names == ("good", "bad")
    with pytest.raises(DataError, match=r"data\.train needs a file"):
        Files().load("auto", 1)
