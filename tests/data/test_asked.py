from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from compress.data import Files, Hub
from compress.data.dataset import Dataset
from compress.errors import DataError, RecipeError
from compress.run.handed_over import settled
from compress.run.recipe import Recipe
from compress.tasks.choice import TaskChoice
from compress.tasks.span_labels import golds
from compress.tasks.spans import AnswerSpans

CONTEXTS = [f"  The plot of film {number} was very good, and the {number}th actor was fine." for number in range(12)]
ROWS: list[dict[str, Any]] = [
    {
        "question": question,
        "context": context,
        "answers": [{"text": answer, "answer_start": context.index(answer)}],
    }
    for number, context in enumerate(CONTEXTS)
    for question, answer in ((f"Which film is {number}?", f"film {number}"), ("How was the plot?", "very good"))
]


def squad(rows: list[dict[str, Any]], version: str = "1.1") -> str:
    paragraphs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        paragraphs.setdefault(row["context"], []).append({k: v for k, v in row.items() if k != "context"})
    built = [{"context": context, "qas": qas} for context, qas in paragraphs.items()]
    return json.dumps({"version": version, "data": [{"title": "films", "paragraphs": built}]}, indent=1)


def side_by_side(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as `datasets` has it."""
    answers = row["answers"]
    return row | {"answers": {key: [answer[key] for answer in answers] for key in ("text", "answer_start")}}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def load(tmp_path: Path, name: str, content: str, task: str | TaskChoice = "auto", **settings: Any) -> Dataset:
    (tmp_path / name).write_text(content)
    return Files(train=str(tmp_path / name), **settings).load(task, 1)


def rows_of(data: Dataset) -> set[tuple[str, ...]]:
    return {
        (question, context, *gold.texts)
        for split in (data.train, data.validation, data.test)
        for question, context, gold in zip(split.texts, split.pairs or (), golds(split.known_labels), strict=True)
    }


EXPECTED = {(row["question"], row["context"], row["answers"][0]["text"]) for row in ROWS}
KINDS = {
    "SQuAD": ("a.json", squad(ROWS)),
    "a row a line": ("a.jsonl", lines(ROWS)),
    "as datasets has it": ("a.jsonl", lines([side_by_side(row) for row in ROWS])),
    "texts alone": ("a.jsonl", lines([row | {"answers": [row["answers"][0]["text"]]} for row in ROWS])),
    "JSON lines in a .json file": ("a.json", lines(ROWS)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_write_answers_is_read_alike(tmp_path: Path, kind: str) -> None:
    data = load(tmp_path, *KINDS[kind])
    assert data.task == AnswerSpans()
    assert rows_of(data) == EXPECTED
    assert data.train.by_token is AnswerSpans


def test_rows_of_a_table_and_of_a_folder_are_read_too(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list([side_by_side(row) for row in ROWS])
    given = settled(Recipe(data=table, cache=str(tmp_path / "cache")))  # type: ignore[arg-type]
    assert rows_of(given.data.load("auto", 1)) == EXPECTED
    (tmp_path / "set").mkdir()
    table.to_parquet(str(tmp_path / "set" / "train.parquet"))
    assert rows_of(Hub(path=str(tmp_path / "set")).load("auto", 1)) == EXPECTED
    assert rows_of(Files(train=str(tmp_path / "set" / "train.parquet")).load("auto", 1)) == EXPECTED


def test_questions_about_one_context_are_never_on_both_sides_of_a_cut(tmp_path: Path) -> None:
    data = load(tmp_path, "a.json", squad(ROWS))
    contexts = [set(split.pairs or ()) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, contexts)) == len(CONTEXTS)


def test_questions_without_an_answer_make_the_task_one_of_unanswerable_questions(tmp_path: Path) -> None:
    more = [
        {"question": "Who knows?", "context": c, "answers": [], "is_impossible": True, "plausible_answers": [{}]}
        for c in CONTEXTS
    ]
    data = load(tmp_path, "a.json", squad([*(row | {"is_impossible": False} for row in ROWS), *more], "v2.0"))
    assert data.task == AnswerSpans(unanswerable=True)
    assert (data.train.known_labels[:, 0] == 0).any()
    assert (data.test.known_labels[:, 0] == 0).any()
    again = load(tmp_path, "a.jsonl", lines([*({k: v for k, v in r.items() if k in ROWS[0]} for r in more), *ROWS]))
    assert rows_of(again) == rows_of(data)


def test_the_overlap_of_windows_can_be_set_and_only_of_this_task(tmp_path: Path) -> None:
    data = load(tmp_path, "a.jsonl", lines(ROWS), TaskChoice(stride=5))
    assert data.task == AnswerSpans(stride=5)
    assert data.train.overlap == 5
    (tmp_path / "b.tsv").write_text("good\tfine\nbad\tdull\n" * 9)
    with pytest.raises(RecipeError, match=r"task.stride = 5: is for long texts that are read in windows"):
        Files(train=str(tmp_path / "b.tsv")).load(TaskChoice(stride=5), 1)


ROW = {"question": "How?", "context": "It was very good.", "answers": [{"text": "good", "answer_start": 12}]}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "elsewhere": (
        {"answers": [{"text": "good", "answer_start": 11}]},
        r"line 2: the answer 'good' is not at character 11 of its context, where ' goo' stands; it occurs at 12\. "
        r"Correct answer_start",
    ),
    "behind the end": (
        {"answers": [{"text": "good", "answer_start": 99}]},
        "where the context has ended; it occurs at 12",
    ),
    "nowhere": ({"answers": [{"text": "bad", "answer_start": 3}]}, "where 'was' stands; it occurs nowhere in it"),
    "nowhere, without offset": ({"answers": ["bad"]}, "answer 'bad' does not occur in its context"),
    "offset in words": (
        {"answers": [{"text": "good", "answer_start": "12"}]},
        "has the answer_start 12, which is not a",
    ),
    "empty answer": ({"answers": [{"text": " ", "answer_start": 2}]}, "the answer is empty"),
    "empty question": ({"question": " "}, "line 2: the question is empty. Fill it, or remove the row."),
    "empty context": ({"context": "\u200b \n"}, "line 2: the context is empty"),
    "answer is a number": ({"answers": 3}, "the answers are a number, not a list"),
    "uneven": ({"answers": {"text": ["good"], "answer_start": []}}, "have 1 text and another number of 'answer_start'"),
}


@pytest.mark.parametrize("case", BAD)
def test_answers_that_are_not_where_they_should_be_are_refused_with_their_line(tmp_path: Path, case: str) -> None:
    changed, expected = BAD[case]
    with pytest.raises(DataError, match=expected):
        load(tmp_path, "a.jsonl", lines([ROW, ROW | changed]))


def test_squad_files_that_contradict_themselves_are_refused_with_the_number_of_the_question(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"is_impossible": True}]
    with pytest.raises(DataError, match=r"a.json, question 2: has 1 answer and is_impossible = true"):
        load(tmp_path, "a.json", squad(rows, "v2.0"))
    with pytest.raises(DataError, match=r"question 2: has no answer, and is_impossible = false"):
        load(tmp_path, "a.json", squad([ROW, ROW | {"answers": [], "is_impossible": False}], "v2.0"))
    with pytest.raises(DataError, match=r"question 1: not as SQuAD's JSON is built"):
        load(tmp_path, "a.json", '{"data": [{"text": "x"}]}')
    with pytest.raises(DataError, match=r"not valid JSON \(Expecting"):
        load(tmp_path, "a.json", '{"data": [')


def test_answers_without_an_offset_that_occur_twice_are_counted(tmp_path: Path) -> None:
    rows = [ROW | {"context": f"{n} good, very good", "answers": ["good"]} for n in range(12)]
    data = load(tmp_path, "a.jsonl", lines(rows))
    assert any("12 answers" in note and "without answer_start occur more than once" in note for note in data.notes)
    assert all(
        label[1] == np.char.find(str(c), "good")
        for label, c in zip(data.train.known_labels, data.train.pairs or (), strict=True)
    )


def test_labels_of_other_tasks_are_refused_where_spans_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("label\tquestion\tcontext\ngood\tHow?\tIt was good.\nbad\tHow?\tIt was bad.\n")
    with pytest.raises(DataError, match=r"the label 'good' is not a list of answers. Write answers as SQuAD does"):
        Files(train=str(tmp_path / "a.tsv")).load("spans", 1)
