"""Vectors of texts and scores of candidates in a file teach what the model that gave them teaches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.data.dataset import Dataset
from compress.distill.losses import LOSSES
from compress.distill.stage import Distill
from compress.errors import RecipeError
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model
from compress.models.tokens import tokenize
from compress.run.answer import write_answers
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.tasks.choice import TaskChoice
from compress.teachers.answer_table import Match
from compress.teachers.answers import AnswerFile, Missing
from compress.teachers.model import Teacher
from tests.conftest import save_tiny, tiny_tokenizer
from tests.tasks.test_ranking import candidates, write
from tests.tasks.test_vectors import pair_files, quick

Rows = list[dict[str, Any]]


def of_vectors(folder: Path) -> Recipe:
    """A teacher of vectors, taught by its distance and by which texts are alike."""
    losses = {name: LOSSES[name]() for name in ("alignment", "similarities")}
    return _taught(folder, "vectors", Files(**pair_files(folder)), losses)


def of_rankings(folder: Path) -> Recipe:
    """A teacher of scores, taught by its margins."""
    files = {
        name: write(folder / f"{name}.jsonl", candidates(queries, seed))
        for name, queries, seed in (("train", 30, 1), ("validation", 10, 2), ("test", 10, 3))
    }
    return _taught(folder, "ranking", Files(**files), {"margin_mse": LOSSES["margin_mse"]()})


def _taught(folder: Path, task: str, data: Files, losses: dict[str, Any]) -> Recipe:
    return quick(
        folder, save_tiny(folder / "teacher"), task=TaskChoice(kind=task), data=data, export={},
        student=Bert(layers=1, start=str(save_tiny(folder / "start", "distilbert"))),
        teacher=Teacher(model=str(folder / "teacher"), max_tokens=32, epochs=1, least_steps=0),
        distill=Distill(epochs=4, learning_rate=1e-2, batch_size=8, losses=losses, keep_best=False),
        benchmark=Benchmark(rows=3, batches=[1], tokens=[8], seconds=0.01, teacher_int8=False, labels_only=False),
    )  # fmt: skip


def answered(recipe: Recipe, path: Path) -> Rows:
    write_answers(recipe, path)
    return [json.loads(line) for line in path.read_text().splitlines()]


def from_file(recipe: Recipe, file: Path, rows: Rows | None = None, **settings: Any) -> Recipe:
    if rows is not None:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = AnswerFile(file=str(file), **settings)
    return replace(recipe, teacher=teacher, output=f"{recipe.output}-from-file")


def learned(recipe: Recipe) -> Dataset:
    """Return the data as it is learned."""
    return recipe.teacher.inspect(check(recipe).data).data


@pytest.mark.parametrize("make", [of_vectors, of_rankings])
def test_a_file_teaches_what_the_teacher_that_wrote_it_teaches(tmp_path: Path, make: Callable[[Path], Recipe]) -> None:
    recipe, file = make(tmp_path), tmp_path / "answers.jsonl"
    rows = answered(recipe, file)
    texts = [(row["text"], row.get("text_b")) for row in rows]
    assert len(texts) == len(set(texts))
    live, filed = recipe.run(), from_file(recipe, file).run()
    given = live.state.data.test
    ours, theirs = (
        predict_rows(load_model(run.folder / "student"), tokenize(given, tiny_tokenizer("distilbert"), 32))
        for run in (live, filed)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    loss = next(iter(recipe.distill.losses))
    curve = [point[loss] for point in filed.report.stages[-1].curves if loss in point]
    assert curve[-1] < curve[0]
    assert live.report.stages[0].metrics == pytest.approx(filed.report.stages[0].metrics)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Rows]:
    """A recipe, a folder, and the vectors of all of its texts."""
    folder = tmp_path_factory.mktemp("vectors")
    recipe = of_vectors(folder)
    return recipe, folder, answered(recipe, folder / "answers.jsonl")


def test_vectors_have_any_width_and_a_length_of_their_own(vectors: tuple[Recipe, Path, Rows]) -> None:
    recipe, folder, rows = vectors
    rows = [{"text": row["text"], **{f"v_{n}": 3 * value for n, value in enumerate(row["vector"][:5])}} for row in rows]
    task: Any = learned(from_file(recipe, folder / "columns.jsonl", rows, column="v_*")).task
    assert (task.width, task.normalized, task.outputs) == (5, False, 5)


def test_rows_without_a_vector_leave_with_the_text_that_they_are_compared_with(
    vectors: tuple[Recipe, Path, Rows],
) -> None:
    recipe, folder, rows = vectors
    whole = learned(from_file(recipe, folder / "answers.jsonl"))
    gone = set(whole.train.texts[:1])
    left = [row for row in rows if row["text"] not in gone]
    with pytest.raises(RecipeError, match="Rows that are compared with each other all need one") as refused:
        check(from_file(recipe, folder / "left.jsonl", left))
    assert str(refused.value).count("teacher.missing") == 1
    data = learned(from_file(recipe, folder / "left.jsonl", missing=Missing.leave_out))
    both = [pair for pair in zip(whole.train.texts[::2], whole.train.texts[1::2], strict=True) if not gone & set(pair)]
    assert list(zip(data.train.texts[::2], data.train.texts[1::2], strict=True)) == both


BROKEN: dict[str, tuple[Callable[[Rows], Rows], dict[str, Any], str]] = {
    "unequal widths": (
        lambda rows: [*rows[:3], {**rows[3], "vector": rows[3]["vector"][:-1]}, *rows[4:]], {},
        r"line 4: has a vector of 15 numbers, and .*line 1 one of 16\. Give vectors of one width",
    ),
    "no number": (
        lambda rows: [{**rows[0], "vector": [None, *rows[0]["vector"][1:]]}, *rows[1:]], {},
        "line 1: holds 'None' where a number is expected",
    ),
    "no list": (
        lambda rows: [{**rows[0], "vector": {"a": 1}}, *rows[1:]], {},
        "line 1: holds .* where a list of numbers is expected",
    ),
    "zeros": (
        lambda rows: [{**row, "vector": [0.0] * 16} for row in rows], {}, "a vector of zeros, which has no direction"
    ),
    "no column": (
        lambda rows: [{"text": row["text"], "numbers": row["vector"]} for row in rows], {},
        "cannot tell which column holds the vectors: 'text', 'numbers'",
    ),
    "no text": (
        lambda rows: [{"id": "1", "vector": row["vector"]} for row in rows], {},
        r"cannot tell which column holds the texts: 'id', 'vector'\. Name it: teacher\.keys=\[COLUMN\]",
    ),
    "by number": (lambda rows: rows, {"match": Match.number}, "teacher.match=number finds no text"),
    "classes": (lambda rows: rows, {"classes": ["a"]}, "teacher.classes has no effect: vectors have no classes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_hold_no_vectors_are_refused_with_their_place(
    vectors: tuple[Recipe, Path, Rows], tmp_path: Path, name: str
) -> None:
    recipe, _, rows = vectors
    change, settings, message = BROKEN[name]
    with pytest.raises(RecipeError, match=message):
        check(from_file(recipe, tmp_path / "answers.jsonl", change(rows), **settings))


def test_an_array_has_no_texts(vectors: tuple[Recipe, Path, Rows], tmp_path: Path) -> None:
    recipe, _, rows = vectors
    np.save(tmp_path / "answers.npy", [row["vector"] for row in rows])
    with pytest.raises(RecipeError, match="has no texts, by which vectors are found"):
        check(from_file(recipe, tmp_path / "answers.npy"))


def test_texts_alone_suffice_and_scores_are_the_teachers_cosines(
    vectors: tuple[Recipe, Path, Rows], tmp_path: Path
) -> None:
    recipe, folder, rows = vectors
    (tmp_path / "texts.txt").write_text("".join(row["text"] + "\n" for row in rows[:101]))
    recipe = replace(
        from_file(recipe, folder / "answers.jsonl"), output=str(tmp_path / "out"), cache=str(tmp_path / "cache"),
        data=Files(unlabelled=str(tmp_path / "texts.txt"), test=str(folder / "test.tsv")),
    )  # fmt: skip
    run = recipe.run()
    vector_of = {row["text"]: np.array(row["vector"]) for row in rows}
    for split in (run.state.data.train, run.state.data.validation):
        pairs = list(zip(split.texts[::2], split.texts[1::2], strict=True))
        by_hand = [a @ b / np.sqrt(a @ a * (b @ b)) for a, b in ((vector_of[x], vector_of[y]) for x, y in pairs)]
        np.testing.assert_allclose(split.known_labels[::2, 2], by_hand, atol=1e-6)
        np.testing.assert_array_equal(split.known_labels[::2, 2], split.known_labels[1::2, 2])
    assert not set(run.state.data.train.known_labels[:, 0]) & set(run.state.data.validation.known_labels[:, 0])
    assert len(run.report.dataset.answered) == 2
    assert len(run.state.data.test) == 60
