"""Rows of a query with positive and negative texts, however they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.data import Files
from compress.errors import DataError

ROWS = [("a film", "good plot", 1), ("a film", "bad plot", 0), ("a film", "dull", 0), ("actors", "the actor", 1)]

WRITTEN = {
    "lists.jsonl": (
        '{"query": "a film", "positive": "good plot", "negatives": ["bad plot", "dull"]}\n'
        '{"query": "actors", "positive": ["the actor"], "negatives": []}\n'
    ),
    "columns.tsv": (
        "anchor\tpositive\tnegative_1\tnegative_2\na film\tgood plot\tbad plot\tdull\nactors\tthe actor\t\t\n"
    ),
    "columns.csv": "question,Positive,negative\na film,good plot,bad plot\nactors,the actor,\n",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_each_text_beside_a_query_is_a_row_with_its_relevance(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(WRITTEN[name])
    train = Files(train=str(path)).read().train
    expected = ROWS if "csv" not in name else [row for row in ROWS if row[1] != "dull"]
    assert list(zip(train.texts, train.pairs or (), map(int, train.words), strict=True)) == expected
    assert train.groups is not None
    assert [len([own for own in train.groups if own == group]) for group in dict.fromkeys(train.groups)] == [
        len(expected) - 1, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"query": "a", "positive": "b"}\n{"query": "c", "positive": []}\n', "line 2: the text ('positive') is empty"),
        ('{"query": "a", "positive": "b"}\n{"query": "c"}\n', "line 2: has no 'positive'. Each object"),
        ('{"query": "a", "positive": "b", "negative": 3}\n', "line 1: 'negative' holds a number, not a text"),
        ('{"query": "", "positive": "b"}\n', "line 1: the text ('query') is empty"),
    ],
)
def test_rows_that_lack_a_text_are_refused_with_their_line(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(content)
    with pytest.raises(DataError) as error:
        Files(train=str(path)).read()
    assert told in str(error.value)


def test_a_row_with_a_field_too_few_says_which_are_expected(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("query\tpositive\tnegative\na\tb\tc\nd\te\n")
    with pytest.raises(DataError, match=r"line 3: expected 3 fields \(query, positive, negative\), got 2\. A row"):
        Files(train=str(path)).read()


def test_they_are_candidates_of_a_ranking_too(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(WRITTEN["lists.jsonl"] * 20)
    data = Files(train=str(path)).load("ranking", 1)
    assert data.train.groups is not None
    assert max(list(data.train.groups).count(group) for group in set(data.train.groups)) == 3
