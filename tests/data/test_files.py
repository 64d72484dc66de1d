from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress.data import Dataset, Files
from compress.data.corpus import corpus_faults
from compress.settings import all_faults
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression
from compress.teachers.answers import AnswerFile

LABELS = ("neg", "pos")
ROWS = [{"label": LABELS[i % 2], "text": f'say "{i}", ünï {i}'} for i in range(40)]


def write(path: Path, rows: list[dict[str, Any]], *, header: bool = True) -> str:
    names = list(rows[0])
    match path.suffix:
        case ".tsv":
            lines = ["\t".join(str(row[name]) for name in names) for row in rows]
            path.write_text("\n".join((["\t".join(names)] if header else []) + lines) + "\n", encoding="utf-8")
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerows(([names] if header else []) + [list(row.values()) for row in rows])
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case _:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts_and_labels(dataset: Dataset) -> dict[str, str]:
    found = {}
    for split in (dataset.train, dataset.validation, dataset.test):
        for text, label in zip(split.texts, split.known_labels, strict=True):
            found[text] = dataset.task.describe(np.eye(dataset.task.outputs)[[label]])[0]["label"]
    return found


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".json", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    dataset = Files(train=write(tmp_path / f"train{suffix}", ROWS)).load("auto", 1)
    assert dataset.task == Classification(LABELS)
    assert texts_and_labels(dataset) == {row["text"]: row["label"] for row in ROWS}


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_a_file_without_a_header_holds_label_text_and_second_text(tmp_path: Path, suffix: str) -> None:
    plain = Files(train=write(tmp_path / f"plain{suffix}", ROWS, header=False)).load("auto", 1)
    assert texts_and_labels(plain) == {row["text"]: row["label"] for row in ROWS}
    assert plain.train.pairs is None
    pairs = [{**row, "text_b": f"second {row['text']}"} for row in ROWS]
    paired = Files(train=write(tmp_path / f"pairs{suffix}", pairs, header=False)).load("auto", 1)
    assert paired.train.pairs == tuple(f"second {text}" for text in paired.train.texts)


def test_tsv_knows_no_quotes_and_csv_does(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('a\t"one\nb\ttwo"\n' * 1 + "".join(f"a\tx{i}\nb\ty{i}\n" for i in range(9)))
    (tmp_path / "a.csv").write_text('a,"one, ""1""\nand more"\n' + "".join(f"a,x{i}\nb,y{i}\n" for i in range(9)))
    assert {'"one', 'two"'} <= set(texts_and_labels(Files(train=str(tmp_path / "a.tsv")).load("auto", 1)))
    assert 'one, "1"\nand more' in texts_and_labels(Files(train=str(tmp_path / "a.csv")).load("auto", 1))


def test_byte_order_mark_carriage_returns_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    body = "\r\n".join(["label\ttext", "", *(f"{row['label']}\t{row['text']}" for row in ROWS), "", ""])
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbf" + body.encode())
    dataset = Files(train=str(tmp_path / "a.tsv")).load("auto", 1)
    assert texts_and_labels(dataset) == {row["text"]: row["label"] for row in ROWS}


@pytest.mark.parametrize(
    "names",
    [
        ("target", "sentence", None),
        ("intent", "text", None),
        ("score", "sentence1", "sentence2"),
        ("labels", "premise", "hypothesis"),
        ("sentiment", "question1", "question2"),
        ("label", "question", "sentence"),
        ("label", "text_a", "text_b"),
    ],
)
def test_usual_column_names_are_recognised_in_any_order(tmp_path: Path, names: tuple[str, str, str | None]) -> None:
    label, text, pair = names
    rows = [{"id": i, **({pair: f"b{i}"} if pair else {}), text: f"a{i}", label: LABELS[i % 2]} for i in range(40)]
    train = Files(train=write(tmp_path / "train.csv", rows)).load("auto", 1).train
    assert all(row.startswith("a") for row in train.texts)
    assert (train.pairs is None) == (pair is None)
    assert all(row.startswith("b") for row in train.pairs or ())


def test_named_columns_win_over_recognised_ones(tmp_path: Path) -> None:
    rows = [{"text": "no", "label": "no", "review": f"r{i}", "stars": i % 3} for i in range(60)]
    files = Files(train=write(tmp_path / "train.jsonl", rows), text="review", label="stars")
    dataset = files.load("auto", 1)
    assert dataset.task == Classification(("0", "1", "2"))
    assert dataset.train.texts[0].startswith("r")


def test_unlabelled_rows_come_as_lines_or_as_a_column(tmp_path: Path) -> None:
    train = write(tmp_path / "train.tsv", ROWS)
    (tmp_path / "more.txt").write_text("text\ntwo words\n\nlabel\tthree\n")
    (tmp_path / "more.tsv").write_text("text\ttopic\none\tx\n")
    (tmp_path / "bare.tsv").write_text("one\ntwo\n")
    (tmp_path / "passed_over.tsv").write_text("pos\tone\n")

    def unlabelled(name: str) -> tuple[str, ...]:
        split = Files(train=train, unlabelled=str(tmp_path / name)).load("auto", 1).unlabelled
        assert split is not None
        assert split.labels is None
        return split.texts

    assert unlabelled("more.txt") == ("text", "two words", "label\tthree")
    assert unlabelled("more.tsv") == ("one",)
    assert unlabelled("bare.tsv") == ("one", "two")
    assert unlabelled("passed_over.tsv") == ("one",)


def test_scores_make_a_regression(tmp_path: Path) -> None:
    rows = [{"label": i / 8, "text": f"t{i}"} for i in range(41)]
    for suffix in (".tsv", ".parquet"):
        dataset = Files(train=write(tmp_path / f"train{suffix}", rows)).load("auto", 1)
        assert dataset.task == Regression(0, 5)
        assert dataset.train.known_labels.dtype == np.float32


def test_faults_of_settings_are_told_together_before_reading(tmp_path: Path) -> None:
    train = write(tmp_path / "train.tsv", ROWS)
    files = Files(
        train=str(tmp_path / "trian.tsv"),
        validation=str(tmp_path),
        test=str(tmp_path / "none" / "test.xls"),
        unlabelled=train,
        text="label",
        label="label",
        train_rows=0,
        test_share=0.95,
        validation_share=1.5,
    )
    told = "\n".join(map(str, all_faults(files)))
    for fragment in (
        "train_rows = 0",
        "validation_share = 1.5",
        f"does not exist. Did you mean {train}?",
        "is a directory. Name a file in it: train.tsv.",
        "Nor does the folder",
        "same column",
    ):
        assert fragment in told
    assert "needs a file" in "\n".join(map(str, all_faults(Files())))
    assert f"validation = {train!r}: is the file of data.train." in "\n".join(
        map(str, all_faults(Files(train=train, validation=train)))
    )
    assert not list(all_faults(Files(train=train)))


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    nowhere = "is a symbolic link that leads nowhere"
    rules = {"loop": nowhere, "dangling": nowhere, "pipe": "is not a regular file", "none": "does not exist"}
    for name, rule in rules.items():
        path = str(tmp_path / f"{name}.txt")
        found = [*corpus_faults("corpus", path), *all_faults(Files(train=path)), *all_faults(AnswerFile(file=path))]
        about = [fault for fault in found if fault.value == path]
        assert [fault.rule for fault in about] == [rule] * 3
        assert not any(path in fault.remedy for fault in about)
