"""Rows that no split has can be used without their labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.data import Dataset, Files
from tests.conftest import reviews, write_tsv


@pytest.fixture
def train(tmp_path: Path) -> str:
    return str(write_tsv(tmp_path / "train.tsv", reviews(200, 1)))


def load(train: str, **settings: object) -> Dataset:
    return Files(train=train, **settings).load("auto", 13)  # type: ignore[arg-type]


def test_rows_left_over_are_used_without_their_labels_and_never_those_that_are_measured(train: str) -> None:
    data = load(train, train_rows=50, validation_rows=10, test_rows=20, unlabelled_rows=60)
    assert data.unlabelled is not None
    assert (len(data.train), len(data.unlabelled), data.unlabelled.labels) == (50, 60, None)
    used = {text for split in (data.train, data.validation, data.test) for text in split.texts}
    assert not used & set(data.unlabelled.texts)
    assert data.notes[-1].startswith("60 other training rows of 120, at random, seed 13, are used without their labels")
    assert (
        load(train, train_rows=50, validation_rows=10, test_rows=20, unlabelled_rows=60).fingerprint == data.fingerprint
    )


def test_more_than_there_are_takes_all_and_none_is_said(train: str) -> None:
    few = load(train, train_rows=50, unlabelled_rows=10_000)
    assert few.unlabelled is not None
    assert len(few.unlabelled) == 200 - 50 - len(few.validation) - len(few.test)
    none = load(train, unlabelled_rows=5)
    assert none.unlabelled is None
    assert "data.unlabelled_rows has no effect" in none.notes[-1]
    assert load(train).unlabelled is None


def test_they_follow_the_unlabelled_rows_of_a_file(train: str, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("a lovely film\n")
    data = load(train, train_rows=50, unlabelled=str(tmp_path / "more.txt"), unlabelled_rows=3)
    assert data.unlabelled is not None
    assert (len(data.unlabelled), data.unlabelled.texts[0], data.unlabelled.labels) == (4, "a lovely film", None)


def test_the_block_of_rows_counts_them(train: str, tmp_path: Path) -> None:
    sizes = {"train_rows": 50, "validation_rows": 10, "test_rows": 20}
    data = load(train, **sizes, unlabelled_rows=60)
    assert data.summary is not None
    assert dict(data.summary.facts())["rows"] == "50 training, 10 validation, 20 test, 60 unlabelled"
    assert data.summary.plain()["rows"]["unlabelled"] == 60
    (tmp_path / "more.txt").write_text("a lovely film\n")
    both = load(train, **sizes, unlabelled=str(tmp_path / "more.txt"), unlabelled_rows=3)
    assert both.summary is not None
    assert both.summary.rows["unlabelled"] == 4
    without = load(train, **sizes)
    assert without.summary is not None
    assert "unlabelled" not in without.summary.rows


def test_a_negative_number_is_a_fault(train: str) -> None:
    assert [fault.setting for fault in Files(train=train, unlabelled_rows=-1).faults()] == ["unlabelled_rows"]
