"""Several labels per row: lists, separated strings and 0/1 columns, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress.data import Dataset, Files, Hub
from compress.data.labels import refuse_unseen
from compress.errors import DataError
from compress.run.handed_over import settled
from compress.run.recipe import Recipe
from compress.settings import all_faults
from compress.tasks.classification import Classification
from compress.tasks.multi_label import MultiLabel

NAMES = ("cheap", "far", "near")
CHOICES = [["cheap", "near"], ["far"], [], ["cheap"], ["near"], ["cheap", "far"]]
ROWS = [(CHOICES[index % 6], f"text {index}") for index in range(60)]


def answers(data: Dataset) -> dict[str, list[str]]:
    """Return the labels of each text, of all splits."""
    assert data.task.label_names == NAMES
    found: dict[str, list[str]] = {}
    for split in (data.train, data.validation, data.test):
        assert split.known_labels.dtype == np.float32
        for text, row in zip(split.texts, split.known_labels, strict=True):
            found[text] = [name for name, there in zip(NAMES, row, strict=True) if there]
    return found


EXPECTED = {text: names for names, text in ROWS}


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def jsonl(path: Path, rows: list[tuple[Any, str]]) -> str:
    return write(path, [json.dumps({"labels": names, "text": text}) for names, text in rows])


def tsv(path: Path, rows: list[tuple[list[str], str]] = ROWS, sign: str = "|") -> str:
    return write(path, ["label\ttext", *(f"{sign.join(names)}\t{text}" for names, text in rows)])


def columns(path: Path, **extra: str) -> str:
    rows = [
        "\t".join(["text", *NAMES, *extra]),
        *("\t".join([text, *(str(int(n in names)) for n in NAMES), *extra.values()]) for names, text in ROWS),
    ]
    return write(path, rows)


def test_lists_say_that_rows_have_several_labels(tmp_path: Path) -> None:
    data = Files(train=jsonl(tmp_path / "a.jsonl", ROWS)).load("auto", 1)
    assert data.task == MultiLabel(NAMES)
    assert answers(data) == EXPECTED
    assert data.summary is not None
    assert sum(data.summary.classes["cheap"].values()) == 30


def test_numbers_of_named_classes_in_parquet_are_names(tmp_path: Path) -> None:
    numbers = [[NAMES.index(name) for name in names] for names, _ in ROWS]
    kind = {"_type": "List", "feature": {"names": list(NAMES), "_type": "ClassLabel"}}
    for name, feature in (("new", kind), ("old", kind | {"_type": "Sequence"})):
        table = pa.table({"labels": pa.array(numbers, pa.list_(pa.int64())), "text": [text for _, text in ROWS]})
        told = {"huggingface": json.dumps({"info": {"features": {"labels": feature, "text": {}}}})}
        pq.write_table(table.replace_schema_metadata(told), tmp_path / f"{name}.parquet")
        assert answers(Files(train=str(tmp_path / f"{name}.parquet")).load("auto", 1)) == EXPECTED


@pytest.mark.parametrize("sign", ["|", ";", ","])
def test_a_sign_between_names_is_recognised(tmp_path: Path, sign: str) -> None:
    assert answers(Files(train=tsv(tmp_path / "a.tsv", sign=f"{sign} ")).load("multi_label", 1)) == EXPECTED


def test_any_sign_can_be_named(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", sign=" / ")
    assert answers(Files(train=path, separator="/").load("multi_label", 1)) == EXPECTED


def test_lists_that_python_wrote_into_a_csv_are_lists(tmp_path: Path) -> None:
    lines = ["label,text", *(f'"{names}",{text}' for names, text in ROWS)]
    assert answers(Files(train=write(tmp_path / "a.csv", lines)).load("auto", 1)) == EXPECTED


def test_columns_of_zeros_and_ones_are_labels(tmp_path: Path) -> None:
    path = columns(tmp_path / "a.tsv", id="x7")
    data = Files(train=path, label_columns=list(NAMES)).load("auto", 1)
    assert answers(data) == EXPECTED
    assert data.summary is not None
    assert data.summary.columns[path].label_columns == NAMES
    assert data.summary.columns[path].ignored == ("id",)
    assert answers(Files(train=path, label_columns=["*ea*", "far"]).load("auto", 1)) == EXPECTED


def test_rows_of_the_hub_and_of_python_have_lists_and_columns_too(tmp_path: Path) -> None:
    features = datasets.Features(
        {"labels": datasets.List(datasets.ClassLabel(names=list(NAMES))), "text": datasets.Value("string")}
    )
    records = [{"labels": names, "text": text} for names, text in ROWS]
    table = datasets.Dataset.from_list(records, features=features)
    given = Recipe(data=table, cache=str(tmp_path / "cache"))  # type: ignore[arg-type]
    assert answers(settled(given).data.load("auto", 1)) == EXPECTED
    (tmp_path / "hub").mkdir()
    table.to_parquet(tmp_path / "hub" / "train.parquet")
    assert answers(Hub(path=str(tmp_path / "hub")).load("auto", 1)) == EXPECTED
    (tmp_path / "marks").mkdir()
    marks = [{"text": text, **{name: int(name in names) for name in NAMES}} for names, text in ROWS]
    datasets.Dataset.from_list(marks).to_parquet(tmp_path / "marks" / "train.parquet")
    assert answers(Hub(path=str(tmp_path / "marks"), label_columns=list(NAMES)).load("auto", 1)) == EXPECTED


def test_a_split_keeps_rows_of_the_rarest_label(tmp_path: Path) -> None:
    rare = [(["cheap", "near"], f"text {index}") for index in range(40)]
    rows = [*rare, *((["far"], f"far {index}") for index in range(4)), *(([], f"none {index}") for index in range(20))]
    data = Files(train=jsonl(tmp_path / "a.jsonl", rows)).load("auto", 1)
    for split in (data.train, data.validation, data.test):
        assert split.known_labels[:, NAMES.index("far")].sum() > 0


def test_one_label_per_row_is_still_a_class(tmp_path: Path) -> None:
    rows = [(names, text) for names, text in ROWS if len(names) == 1]
    assert Files(train=tsv(tmp_path / "a.tsv", rows)).load("auto", 1).task == Classification(NAMES)


def test_a_sign_that_was_not_recognised_is_asked_about_where_no_row_has_two_labels(tmp_path: Path) -> None:
    data = Files(train=tsv(tmp_path / "a.tsv", ROWS, "/")).load("multi_label", 1)
    assert any(note.startswith("No training row has two labels.") for note in data.notes)
    assert not any(
        "two labels" in note for note in Files(train=tsv(tmp_path / "b.tsv", ROWS)).load("multi_label", 1).notes
    )


BAD: dict[str, tuple[list[tuple[Any, str]] | list[str], dict[str, Any], str]] = {
    "twice": ([*ROWS, (["far", "far"], "x")], {}, r"a\.jsonl, line 61: the label 'far' stands twice in this row"),
    "everywhere": ([([*names, "all"], text) for names, text in ROWS], {}, "every row has the label 'all'"),
    "only one": (
        [(names[:0] or ["a"][: i % 2], text) for i, (names, text) in enumerate(ROWS)],
        {},
        "only label is 'a'",
    ),
    "none": ([([], text) for _, text in ROWS], {}, "no row has a label, and multi_label needs two or more"),
    "null": ([*ROWS, (None, "x")], {}, r"line 61: the label \('labels'\) is empty"),
    "null in a list": ([*ROWS, (["far", None], "x")], {}, r"line 61: the label \('labels'\) is empty"),
    "list of lists": ([*ROWS, ([["far"]], "x")], {}, r"line 61: the label \('labels'\) is a list, not a word"),
    "empty name": ([*ROWS, (["far", " "], "x")], {}, "line 61: .* has an empty label"),
    "0 and 1 for each label": (
        [([int(name in names) for name in NAMES], text) for names, text in ROWS],
        {},
        r"line 1: the labels .* are a 0 or 1 for each label, .* data\.label_columns",
    ),
    "0 or 1 of two": ([([i % 2, 1 - i % 2], text) for i, (_, text) in enumerate(ROWS)], {}, "are a 0 or 1 for each"),
    "true and false": ([([n in names for n in NAMES], text) for names, text in ROWS], {}, "are a 0 or 1 for each"),
    "separator of lists": (ROWS, {"separator": "|"}, "'|' has no effect, because labels are lists already"),
    "long": ([*ROWS, (["a" * 1001], "x")], {}, "line 61: a label has 1,001 characters"),
}


@pytest.mark.parametrize("kind", BAD)
def test_lists_that_cannot_be_used_are_named_with_their_line(tmp_path: Path, kind: str) -> None:
    rows, settings, message = BAD[kind]
    with pytest.raises(DataError, match=message):
        Files(train=jsonl(tmp_path / "a.jsonl", rows), **settings).load("multi_label", 1)  # type: ignore[arg-type]


def test_separators_that_may_not_be_meant_are_asked_about(tmp_path: Path) -> None:
    def refused(rows: list[tuple[list[str], str]], sign: str = "|", **settings: Any) -> str:
        with pytest.raises(DataError) as caught:
            Files(train=tsv(tmp_path / "a.tsv", rows, sign), **settings).load("multi_label", 1)
        return str(caught.value)

    both = [*ROWS, (["a,b", "far"], "x")]
    assert "'|' and ',' both occur in labels" in refused(both)
    lone = [(names[:1], text) for names, text in ROWS[:-2]] + [(["Pop, Rock"], "x"), (["Soul, Blues"], "y")]
    message = refused(lone)
    assert "does ',' separate labels in 'Pop, Rock' (" in message
    assert "a.tsv, line 60" in message
    assert message.endswith("if it is part of a name: data.separator=''.")
    data = Files(train=tsv(tmp_path / "a.tsv", lone), separator="").load("multi_label", 1)
    assert "Pop, Rock" in data.task.label_names
    wrong = refused(ROWS, separator=";")
    assert "data.separator = ';' occurs in no label, and '|' seems to separate them, as in 'cheap|near' (" in wrong
    trailing = [*ROWS, (["far", ""], "x")]
    assert "line 62: 'far|' has an empty label between its separators" in refused(trailing)
    with pytest.raises(DataError, match="is for several labels in one field, and the labels are classes"):
        Files(train=tsv(tmp_path / "a.tsv"), separator="|").load("classification", 1)
    assert any(fault.setting == "separator" for fault in all_faults(Files(train="a.tsv", separator="x")))


def test_an_empty_field_is_a_row_without_labels_only_where_there_may_be_several(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv")
    assert answers(Files(train=path).load("multi_label", 1))["text 2"] == []
    with pytest.raises(DataError, match=r"line 4: the label \('label'\) is empty.* 9 more rows like it"):
        Files(train=path).load("classification", 1)


def test_lists_among_words_are_not_classes(tmp_path: Path) -> None:
    mixed = [(names[0] if len(names) == 1 else names, text) for names, text in ROWS]
    path = jsonl(tmp_path / "a.jsonl", mixed)
    assert answers(Files(train=path, separator="|").load("multi_label", 1)) == EXPECTED
    with pytest.raises(DataError, match=r"line 1: the label is a list, .*task=multi_label"):
        Files(train=path).load("auto", 1)
    assert answers(Files(train=path).load("multi_label", 1)) == EXPECTED


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        (["text\ta\tb", *["x\t1\t0"] * 9, "y\t2\t1"], ["a", "b"], "line 11: the label column 'a' holds '2', neither 0"),
        (["text\ta\tb", *["x\t1\t0", "y\t0\t0"] * 9], ["a", "b"], "the label column 'b' is 0 in every row"),
        (["text\ta\tb", *["x\t1\t0", "y\t0\t0"] * 9], ["a", "c"], r"no column 'c' \(data.label_columns\)"),
        (["text\ta\tb", *["x\t1\t1", "y\t0\t1"] * 9], ["a", "b"], "every row has the label 'b'"),
    ],
)
def test_columns_that_cannot_be_used_are_named(
    tmp_path: Path, lines: list[str], settings: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Files(train=write(tmp_path / "a.tsv", lines), label_columns=settings).load("auto", 1)


def test_one_label_column_and_several_are_not_both_named() -> None:
    faults = all_faults(Files(train="a.tsv", label="a", label_columns=["b", "c"]))
    assert any("is one column, and label_columns names several" in fault.rule for fault in faults)


def test_a_label_without_a_training_row_is_refused_with_its_place(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "a.jsonl", ROWS)
    test = jsonl(tmp_path / "b.jsonl", [*ROWS[:6], (["far", "new"], "x")])
    data = Files(train=train, validation=train.replace("a.j", "b.j"), test=None).load("auto", 1)
    assert Path(test).name == "b.jsonl"
    with pytest.raises(DataError, match=r"b\.jsonl, line 7: the label 'new' does not occur in the training rows"):
        refuse_unseen(data)
