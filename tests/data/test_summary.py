"""The block in which a run says how it read the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.data import Dataset, Files, Split
from compress.data.summary import Summary
from compress.errors import CompressError
from compress.models.row_lengths import row_lengths, with_cuts
from compress.report.document import parse
from tests.conftest import reviews, tiny_tokenizer, write_tsv


def rows_of(label: str, count: int) -> list[tuple[str, str]]:
    return [(label, f"film {label} {i}") for i in range(count)]


def loaded(folder: Path, test: list[tuple[str, str]]) -> Dataset:
    train = rows_of("good", 9) + rows_of("bad", 8) + rows_of("Good", 2) + rows_of("odd", 1) + rows_of("go\u200bod", 2)
    paths = {
        name: str(write_tsv(folder / f"{name}.tsv", [("label", "text"), *rows]))
        for name, rows in {"train": train, "validation": rows_of("bad", 3), "test": test}.items()
    }
    return Files(**paths).load("auto", 1)


def summary(dataset: Dataset) -> Summary:
    assert dataset.summary is not None
    return dataset.summary


def test_classes_are_counted_by_split_and_what_is_odd_about_them_is_said(tmp_path: Path) -> None:
    found = summary(loaded(tmp_path, rows_of("good", 4) + rows_of("bad", 1)))
    assert dict(found.rows) == {"training": 22, "validation": 3, "test": 5}
    assert found.classes["good"] == {"training": 9, "validation": 0, "test": 4}
    assert found.once == ("odd",)
    assert found.alike == (("Good", "good", "go\u200bod"),)
    assert found.absent["test"] == ("Good", "go\u200bod", "odd")
    told = dict(found.facts())
    assert told["seen once in training"] == "'odd'"
    assert "'Good' and 'good' and 'go\\u200bod'" in told["differ only in case, space or Unicode form"]
    assert "'good' 9/0/4" in told["classes"]


def test_labels_that_are_written_in_two_ways_are_alike(tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "train.tsv", [(("1", "1.0", "2", '"2"')[i % 4], f"film {i}") for i in range(60)])
    assert summary(Files(train=str(train)).load("auto", 1)).alike == (('"2"', "2"), ("1", "1.0"))


def test_rows_cut_are_counted_with_their_share_of_tokens(tmp_path: Path) -> None:
    data = loaded(tmp_path, rows_of("good", 4))
    tokenizer = tiny_tokenizer()
    lengths = row_lengths(data.test, tokenizer)
    longest = int(lengths.max())
    cut = summary(with_cuts(data, tokenizer, longest - 1))
    assert cut.cut["test"].cut == int((lengths > longest - 1).sum())
    assert cut.cut["test"].lost / cut.cut["test"].tokens == pytest.approx((lengths == longest).sum() / lengths.sum())
    (sentence,) = cut.cutting()
    assert sentence.startswith(f"Cut at teacher.max_tokens = {longest - 1}: 22 of 22 training rows (")
    assert "4 of 4 test rows" in sentence
    assert "Raise teacher.max_tokens" in sentence
    assert cut.warnings()[0] == sentence
    assert not summary(with_cuts(data, tokenizer, longest)).cutting()


def test_a_stored_truncation_does_not_hide_what_is_cut() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(4)
    assert row_lengths(Split(("the film was good and the plot was dull",)), tokenizer).tolist() == [11]


def test_a_few_rows_cut_are_told_without_a_remedy() -> None:
    lengths = {"training": np.array([5] * 99 + [12])}
    (sentence,) = Summary().with_cuts(lengths, 10).cutting()
    assert sentence == "Cut at teacher.max_tokens = 10: 1 of 100 training rows (0.4% of the tokens)."


def read_back(kept: dict[str, Any]) -> Summary:
    return parse({"schema": 2, "dataset": {"summary": kept}}).dataset.summary


def test_a_report_gives_the_summary_back(tmp_path: Path) -> None:
    data = with_cuts(loaded(tmp_path, rows_of("good", 4)), tiny_tokenizer(), 5)
    assert read_back(json.loads(json.dumps(summary(data).plain()))) == summary(data)
    assert read_back({}) == Summary()
    for broken in (
        {"columns": 7},
        summary(data).plain() | {"once": "no"},
        summary(data).plain() | {"cut": {"test": {}}},
    ):
        with pytest.raises(CompressError, match=r"'dataset\.summary"):
            read_back(broken)


def test_scores_have_no_classes(tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "train.tsv", [(str(i / 8), text) for i, (_, text) in enumerate(reviews(60, 1))])
    found = summary(Files(train=str(train)).load("auto", 1))
    assert not found.classes
    assert not found.once
