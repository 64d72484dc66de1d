"""Answers are written to a file that teaches as their teacher does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compress.cli.main import main
from compress.data import Files
from compress.models.loading import save_model
from compress.pipeline.answers import OfModel
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.teachers.answers import AnswerFile, KeptAnswers
from compress.teachers.model import Teacher
from tests.conftest import reviews, tiny_model, tiny_tokenizer, write_tsv

LABELS = {"id2label": {0: "good", 1: "bad"}, "label2id": {"good": 0, "bad": 1}}  # another order than the data's


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answer")
    for name, count, seed in (("train", 120, 1), ("validation", 40, 2), ("test", 40, 3)):
        write_tsv(folder / f"{name}.tsv", reviews(count, seed))
    save_model(tiny_model(**LABELS), tiny_tokenizer(), folder / "teacher")
    return folder


def words(world: Path) -> list[str]:
    splits = [f"data.{name}={world / f'{name}.tsv'}" for name in ("train", "validation", "test")]
    return [
        "recipe=soft_targets", "data=files", *splits, f"teacher.model={world / 'teacher'}", "teacher.max_tokens=32",
        f"cache={world / 'cache'}", "benchmark.tokens=[16]", "student.layers=2",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.parquet"])
def test_a_written_file_has_the_teachers_own_logits(world: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["answer", str(world / name), *words(world)]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == f"{world / name}: answers to 200 rows\n"
    data = Files(**{split: str(world / f"{split}.tsv") for split in ("train", "validation", "test")}).load("auto", 13)
    workshop = Workshop(world / "cache")
    before = State.begin(data=data, workshop=workshop, seed=13)
    live = Teacher(model=str(world / "teacher"), max_tokens=32)(before)
    kept = AnswerFile(file=str(world / name))(before).answers
    assert isinstance(kept, KeptAnswers)
    own = OfModel(live.given_teacher).logits(data.train, workshop)
    order = [live.data.task.output_names.index(label) for label in data.task.output_names]
    np.testing.assert_array_equal(kept.logits(data.train, workshop), own[:, order])


def test_a_file_that_cannot_be_written_is_refused_before_work(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.jsonl").write_text("")
    for name, expected in (
        ("answers.txt", "must end in .jsonl or .parquet"),
        ("there.jsonl", "is there already"),
        ("away/answers.jsonl", "is in a folder that does not exist"),
    ):
        assert main(["answer", str(tmp_path / name), *words(world)]) == 2
        assert expected in capsys.readouterr().err
