"""What is ambiguous in a file is asked about, with the setting that answers; what is clear is read."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress.data import Dataset, Files
from compress.data.rows import Columns
from compress.errors import DataError
from compress.settings import all_faults
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression

ROWS = "".join(f"neg\tbad film number {i} of many\npos\tgood film number {i} of many\n" for i in range(20))
COMMAS = ROWS.replace("\t", ",")


def load(folder: Path, content: str | bytes, suffix: str = ".tsv", kind: str = "auto", **settings: Any) -> Dataset:
    path = folder / f"train{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Files(train=str(path), **settings).load(str(kind), 1)


def refused(folder: Path, content: str | bytes, suffix: str = ".tsv", kind: str = "auto", **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, content, suffix, kind, **settings)
    message = str(caught.value)
    assert f"train{suffix}" in message
    assert "\n" not in message
    return message


def columns(dataset: Dataset) -> Columns:
    assert dataset.summary is not None
    return next(iter(dataset.summary.columns.values()))


# headers


@pytest.mark.parametrize("header", ["class\treview", "polarity\treview text", "Kategorie\tInhalt"])
def test_a_header_that_is_not_known_is_not_taken_for_a_row(tmp_path: Path, header: str) -> None:
    content = f"{header}\n{ROWS}"
    message = refused(tmp_path, content)
    assert "line 1: is " in message
    assert "data.header=true" in message
    assert "data.header=false" in message
    label, text = header.split("\t")
    named = load(tmp_path, content, label=label, text=text)
    assert named.task == Classification(("neg", "pos"))
    row = load(tmp_path, content, header=False)
    assert row.task == Classification(tuple(sorted(["neg", "pos", label])))


def test_a_header_above_scores_is_not_taken_for_a_row(tmp_path: Path) -> None:
    scores = "".join(f"{i / 10}\tscored {i}\n" for i in range(60))
    assert "is 'grade', 'essay' a header or a row?" in refused(tmp_path, "grade\tessay\n" + scores)


@pytest.mark.parametrize(
    "first",
    [
        "mixed\ta film that is good at times, bad at others, and long.",  # a sentence
        "1\tx",  # a number
        "pos\tx",  # a class of other rows
    ],
)
def test_a_first_row_that_can_only_be_a_row_is_read(tmp_path: Path, first: str) -> None:
    dataset = load(tmp_path, f"{first}\n{ROWS}")
    assert not columns(dataset).named
    assert first.split("\t", maxsplit=1)[0] in dataset.task.head_config()["label2id"]


def test_a_class_of_line_1_that_the_test_file_has_too_is_a_class(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text(ROWS + "mixed\tso so\n")
    dataset = load(tmp_path, f"mixed\tfair\n{ROWS}", test=str(tmp_path / "test.tsv"))
    assert "mixed" in dataset.task.head_config()["label2id"]


def test_a_small_file_whose_classes_all_occur_once_is_read(tmp_path: Path) -> None:
    rows = "a\tx\nb\ty\nc\tz\n"
    for name in ("validation", "test"):
        (tmp_path / f"{name}.tsv").write_text("a\tx\n")
    settings = {name: str(tmp_path / f"{name}.tsv") for name in ("validation", "test")}
    assert load(tmp_path, rows, **settings).task == Classification(("a", "b", "c"))


def test_no_header_and_named_columns_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(ROWS)
    faults = list(all_faults(Files(train=str(tmp_path / "train.tsv"), header=False, text="text")))
    assert [fault.setting for fault in faults] == ["header"]


# columns of one name, and others than the training file's


@pytest.mark.parametrize("header", ["text,text,label", "text, text ,label"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str) -> None:
    message = refused(tmp_path, f"{header}\n" + "".join(f"no,yes {i},{i % 2}\n" for i in range(40)), ".csv")
    assert "columns 1 and 2 are both named 'text'" in message


def test_names_that_differ_in_case_alone_are_settled_by_naming_one(tmp_path: Path) -> None:
    content = "Text,text,label\n" + "".join(f"no,yes {i},{i % 2}\n" for i in range(40))
    assert "'Text' and 'text' differ only in case" in refused(tmp_path, content, ".csv")
    dataset = load(tmp_path, content, ".csv", text="text", label="label")
    assert dataset.train.texts[0].startswith("yes")


def test_a_key_that_an_object_has_twice_is_refused(tmp_path: Path) -> None:
    rows = "".join(f'{{"text": "a {i}", "label": {i % 2}}}\n' for i in range(40))
    message = refused(tmp_path, rows + '{"text": "a", "text": "b", "label": 1}\n', ".jsonl")
    assert "line 41: has the key 'text' twice" in message


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array(["x", "y"]), pa.array(["x", "y"]), pa.array([0, 1])], names=["text", "text", "label"])
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet: has two columns 'text'"):
        Files(train=str(tmp_path / "train.parquet")).load("auto", 1)


def test_a_test_file_gives_the_columns_that_the_training_file_gives(tmp_path: Path) -> None:
    train = "sentence,label\n" + "".join(f"film {i},{i % 2}\n" for i in range(40))
    (tmp_path / "more.csv").write_text("text,sentence,label\nno,film,1\nno,other film,0\n")
    (tmp_path / "other.csv").write_text("review,label\nfilm,1\n")
    dataset = load(tmp_path, train, ".csv", test=str(tmp_path / "more.csv"))
    assert list(dataset.test.texts) == ["film", "other film"]
    with pytest.raises(DataError, match=r"other\.csv: has no column 'sentence', which .*train\.csv has"):
        load(tmp_path, train, ".csv", test=str(tmp_path / "other.csv"))


# second texts


def test_a_second_text_is_never_dropped_unasked(tmp_path: Path) -> None:
    rows = [f"the food was good and the waiter {i} was not,{('food', 'service')[i % 2]},{i % 2}" for i in range(40)]
    content = "text,aspect,label\n" + "\n".join(rows) + "\n"
    message = refused(tmp_path, content, ".csv")
    assert "data.text=text data.text_pair=aspect" in message
    assert "for the one text alone: data.text=text." in message
    pairs = load(tmp_path, content, ".csv", text="text", text_pair="aspect")
    assert set(pairs.train.pairs or ()) == {"food", "service"}
    alone = load(tmp_path, content, ".csv", text="text")
    assert alone.train.pairs is None
    assert columns(alone).ignored == ("aspect",)


def test_a_column_of_free_texts_is_asked_about_whatever_its_name(tmp_path: Path) -> None:
    content = "text,zitat,label\n" + "".join(f"one {i},another text of its own {i},{i % 2}\n" for i in range(40))
    assert "'zitat' may hold second texts" in refused(tmp_path, content, ".csv")
    chinese = "text,zitat,label\n" + "".join(f"一 {i},这是另外一段文字{i},{i % 2}\n" for i in range(40))
    assert "'zitat' may hold second texts" in refused(tmp_path, chinese, ".csv")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("idx", "{i}"),
        ("date", "2015-02-24 11:35:{i:02} -0800"),
        ("source", "web"),
        ("author", "author{i}"),
        ("label_text", "very good indeed"),
        ("remark", ""),
    ],
)
def test_numbers_dates_and_kinds_are_listed_not_asked_about(tmp_path: Path, name: str, value: str) -> None:
    rows = "".join(f"{value.format(i=i)},film {i},{i % 2}\n" for i in range(40))
    dataset = load(tmp_path, f"{name},text,label\n{rows}", ".csv")
    assert columns(dataset).ignored == (name,)


# labels


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_no_class_in_jsonl(tmp_path: Path, value: str) -> None:
    rows = "".join(f'{{"label": {i % 2}, "text": "film {i}"}}\n' for i in range(40))
    message = refused(tmp_path, rows + f'{{"label": {value}, "text": "x"}}\n', ".jsonl")
    assert "line 41: the label ('label') is " in message
    assert "not a finite number" in message


def test_a_missing_number_is_no_class_in_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {"text": [f"film {i}" for i in range(41)], "label": [float(i % 2) for i in range(40)] + [float("nan")]}
    )
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"row 41: the label \('label'\) is nan"):
        Files(train=str(tmp_path / "train.parquet")).load("auto", 1)


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", "N/A", "inf"])
def test_a_word_for_a_missing_value_is_no_class_among_numbers(tmp_path: Path, word: str) -> None:
    rows = "".join(f"{i % 3}\tfilm {i}\n" for i in range(60)) + f"{word}\tx\n{word}\ty\n"
    message = refused(tmp_path, rows)
    assert f"line 61: the label {word!r}" in message
    assert "task=classification" in message
    assert "1 more row like it" in message
    assert load(tmp_path, rows, kind="classification").task.outputs == 4


def test_none_is_a_class_among_words_and_nan_is_not(tmp_path: Path) -> None:
    assert load(tmp_path, ROWS + "none\tx film\nnone\ty film\n").task.outputs == 3
    assert "the label 'nan'" in refused(tmp_path, ROWS + "nan\tx film\nnan\ty film\n")


@pytest.mark.parametrize(
    "values",
    [
        [str(i % 101) for i in range(600)],  # 0 to 100
        [str(10 * (i % 11)) for i in range(110)],  # 0, 10, … 100
        [str(1 + i % 9 / 2) for i in range(90)],  # stars in halves
        [str(i % 77) for i in range(770)],  # the numbers of intents
    ],
)
def test_numbers_that_may_be_scores_are_asked_about(tmp_path: Path, values: list[str]) -> None:
    rows = "".join(f"{value}\tfilm {i}\n" for i, value in enumerate(values))
    message = refused(tmp_path, rows)
    assert "are the labels scores or classes?" in message
    assert "task=regression or task=classification" in message
    assert isinstance(load(tmp_path, rows, kind="regression").task, Regression)
    assert load(tmp_path, rows, kind="classification").task == Classification(tuple(sorted(set(values), key=float)))


@pytest.mark.parametrize("count", [2, 5, 6, 11, 20])
def test_a_scale_of_stars_stays_classes(tmp_path: Path, count: int) -> None:
    rows = "".join(f"{i % count}\tfilm {i}\n" for i in range(10 * count))
    assert load(tmp_path, rows).task.outputs == count


@pytest.mark.parametrize(
    ("label", "reason"), [("9" * 5000, "has 5,000 characters"), ("1e39", "is not a finite number")]
)
def test_a_label_that_nothing_can_hold_is_refused(tmp_path: Path, label: str, reason: str) -> None:
    rows = "".join(f"{label if i % 2 else i / 8}\tfilm {i}\n" for i in range(60))
    assert reason in refused(tmp_path, rows)


# files that are not what their suffix says


@pytest.mark.parametrize(
    ("content", "suffix", "reason"),
    [
        (gzip.compress(ROWS.encode()), ".csv", "a gzip archive"),
        (gzip.compress(ROWS.encode()), ".parquet", "a gzip archive, not a Parquet file"),
        (b"PK\x03\x04rest", ".csv", "a zip archive or a spreadsheet"),
        (b"PAR1rest", ".tsv", "Rename it to end in .parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid 1\n", ".parquet", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>\n", ".tsv", "a web page"),
        (ROWS.encode("utf-16-le"), ".tsv", "NUL byte"),
        (b"null\n", ".json", "null, not a JSON object"),
        (b"[]\n", ".json", "a JSON list"),
        (ROWS.replace("\n", "\r").encode(), ".tsv", "lines end in CR alone"),
        (COMMAS.replace("\n", "\r").encode(), ".csv", "lines end in CR alone"),
        (b"label,text\n" + COMMAS.encode() + b"pos,a\rneg,b\n", ".csv", "line 42: a lone carriage return"),
        (b"label\ttext\n" + ROWS.encode() + b"pos\ta\rneg\tb\n", ".tsv", "line 42: a lone carriage return"),
        (
            f"label\ttext\n{ROWS}\ufefflabel\ttext\n{ROWS}".encode(),
            ".tsv",
            "line 42: a byte-order mark in the middle of the file",
        ),
        (f"label\ttext\n{ROWS}label\ttext\n{ROWS}".encode(), ".tsv", "line 42: the header again"),
        (("label;text\n" + ROWS.replace("\t", ";")).encode(), ".csv", "separated by semicolons"),
        (ROWS.replace("\t", ";").encode(), ".csv", "separated by semicolons"),
        (("label\ttext\n" + ROWS).encode(), ".csv", "Rename it to end in .tsv"),
        (('"label"\t"text"\n' + ROWS).encode(), ".tsv", "each field is in double quotes"),
    ],
)
def test_a_file_of_another_kind_is_named_as_such(tmp_path: Path, content: bytes, suffix: str, reason: str) -> None:
    assert reason in refused(tmp_path, content, suffix)


def test_quoted_texts_of_a_tsv_file_are_noted(tmp_path: Path) -> None:
    dataset = load(tmp_path, 'label\ttext\npos\t"she said ""yes"" to it"\n' + ROWS)
    assert "1 text of " in dataset.notes[0]
    assert "a .tsv file has no quoting" in dataset.notes[0]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_only_line_feeds_end_lines(tmp_path: Path, sign: str, suffix: str) -> None:
    rows = {".tsv": ROWS + f"pos\tone{sign}row\n", ".csv": COMMAS + f"pos,one{sign}row\n"}
    objects = [
        {"label": label, "text": text} for label, text in (row.split("\t") for row in rows[".tsv"][:-1].split("\n"))
    ]
    rows[".jsonl"] = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in objects)
    dataset = load(tmp_path, rows[suffix], suffix)
    texts = [text for split in (dataset.train, dataset.validation, dataset.test) for text in split.texts]
    assert len(texts) == 41
    assert f"one{sign}row" in texts


def test_a_long_field_is_read_and_the_limit_of_the_process_stays(tmp_path: Path) -> None:
    long = "long text, " * 20_000
    before = csv.field_size_limit()
    dataset = load(tmp_path, f'{COMMAS}pos,"{long}"\n', ".csv")
    assert long.strip() in [text for split in (dataset.train, dataset.validation, dataset.test) for text in split.texts]
    assert csv.field_size_limit() == before


# Parquet written by the datasets library


def features(names: object) -> dict[bytes, bytes]:
    described = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": described}}).encode()}


def write_classes(path: Path, numbers: list[int | None], metadata: dict[bytes, bytes]) -> str:
    table = pa.table({"text": [f"film {i}" for i in range(len(numbers))], "label": pa.array(numbers, pa.int64())})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)


def test_class_numbers_of_parquet_become_names(tmp_path: Path) -> None:
    train = write_classes(
        tmp_path / "train.parquet", [i % 2 for i in range(40)] + [-1, None], features(["bad", "good"])
    )
    hidden = write_classes(tmp_path / "test.parquet", [-1] * 5, features(["bad", "good"]))
    dataset = Files(train=train, test=hidden).load("auto", 1)
    assert dataset.task == Classification(("bad", "good"))
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 40
    assert f"2 rows of {train} without a label are left out." in dataset.notes
    assert f"The labels of {hidden} are not public; it counts as missing." in dataset.notes


def test_the_library_itself_writes_what_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})
    rows = {"text": [f"film {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(str(tmp_path / "train.parquet"))
    assert Files(train=str(tmp_path / "train.parquet")).load("auto", 1).task == Classification(("bad", "good"))


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({b"huggingface": b"{not json"}, "its metadata 'huggingface'"),
        ({b"huggingface": b"[1]"}, "its metadata 'huggingface'"),
        (features({"0": "bad"}), "are not a list of names"),
        (features(["bad"]), "row 2: the label 1 is none of the 1 classes"),
    ],
)
def test_metadata_that_cannot_be_used_is_named(tmp_path: Path, metadata: dict[bytes, bytes], reason: str) -> None:
    train = write_classes(tmp_path / "train.parquet", [i % 2 for i in range(40)], metadata)
    with pytest.raises(DataError) as caught:
        Files(train=train).load("auto", 1)
    assert reason in str(caught.value)


def test_dictionary_columns_and_dates_of_parquet_are_read(tmp_path: Path) -> None:
    labels = pa.array(["bad", "good"] * 20).dictionary_encode()
    dates = pa.array(range(40), pa.timestamp("ns"))
    table = pa.table({"text": [f"film {i}" for i in range(40)], "label": labels, "date": dates})
    pq.write_table(table, tmp_path / "train.parquet")
    dataset = Files(train=str(tmp_path / "train.parquet")).load("auto", 1)
    assert dataset.task == Classification(("bad", "good"))
    assert columns(dataset).ignored == ("date",)
