"""Every way in which a file can be bad gives one message: file, line, what, remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress.data import Files
from compress.data.labels import refuse_unseen
from compress.errors import DataError

GOOD = "".join(f"neg\tbad {i}\npos\tgood {i}\n" for i in range(20))
NAMED = "label\ttext\n" + GOOD
PAIRS = "".join(f"neg\ta{i}\tb{i}\npos\tc{i}\td{i}\n" for i in range(20))
SCORES = "".join(f"{i / 10}\tscored {i}\n" for i in range(50))
JSON = "".join(f'{{"label": "{"np"[i % 2]}", "text": "t{i}"}}\n' for i in range(40))

# id: (files, settings, fragments of the message)
BAD: dict[str, tuple[dict[str, str | bytes], dict[str, Any], list[str]]] = {
    "missing": (
        {"train.tsv": GOOD},
        {"train": "tarin.tsv"},
        ["tarin.tsv: does not exist. Did you mean ", "train.tsv?"],
    ),
    "missing folder": ({}, {"train": "no/train.tsv"}, ["does not exist", "Nor does the folder"]),
    "directory": ({"sub/train.tsv": GOOD}, {"train": "sub"}, ["sub: is a directory", "Name a file in it: train.tsv"]),
    "suffix": ({"train.xlsx": b"PK"}, {"train": "train.xlsx"}, ["unknown suffix '.xlsx'", ".tsv, .csv, .jsonl"]),
    "txt with labels": ({"train.txt": GOOD}, {"train": "train.txt"}, ["unknown suffix '.txt'"]),
    "no bytes": ({"train.tsv": ""}, {}, ["train.tsv: has no rows", "empty"]),
    "only blank lines": ({"train.tsv": "\n\n"}, {}, ["train.tsv: has no rows"]),
    "only a header": ({"train.tsv": "label\ttext\n"}, {}, ["train.tsv: has a header but no rows"]),
    "no such column": (
        {"train.tsv": "label\treview\n" + GOOD},
        {"text": "reviw"},
        ["has no column 'reviw' (data.text)", "'label', 'review'", "Did you mean review?"],
    ),
    "no label column": (
        {"train.tsv": "text\tclass\nx\ty\n"},
        {},
        ["which column holds the labels", "'class'", "data.label=COLUMN"],
    ),
    "no text column": (
        {"train.tsv": "label\treview\nx\ty\n"},
        {},
        ["which column holds the texts", "'review'", "data.text=COLUMN"],
    ),
    "too few fields": (
        {"train.tsv": PAIRS + "neg\tonly one\n"},
        {},
        ["train.tsv, line 41: expected 3 fields (label, text, text_b), got 2", "one tab"],
    ),
    "too many fields": (
        {"train.csv": "label,text\npos,well, yes\n"},
        {"train": "train.csv"},
        ["line 2", "got 3", "double quotes"],
    ),
    "commas in tsv": (
        {"train.tsv": "pos,fine\nneg,bad\n"},
        {},
        ["line 1: expected label and text", "got 1 field", ".csv"],
    ),
    "empty text": (
        {"train.tsv": NAMED + "pos\t  \n"},
        {},
        ["train.tsv, line 42: the text ('text') is empty", "remove the row"],
    ),
    "empty label": ({"train.tsv": NAMED + "\tfine\n"}, {}, ["train.tsv, line 42: the label ('label') is empty"]),
    "several": (
        {"train.tsv": NAMED + "pos\t\n" * 4},
        {},
        ["train.tsv, line 42: the text", "3 more lines of this file cannot be used"],
    ),
    "nul": ({"train.tsv": NAMED.encode() + b"pos\tx\x00y\n"}, {}, ["train.tsv, line 42: a NUL byte"]),
    "latin-1": (
        {"train.tsv": NAMED.encode() + b"pos\tcaf\xe9\n"},
        {},
        ["line 42: byte 8 (0xe9) is not UTF-8", "iconv"],
    ),
    "latin-1 csv": (
        {"train.csv": NAMED.replace("\t", ",").encode() + b"pos,caf\xe9\n"},
        {"train": "train.csv"},
        ["line 42: byte 8 (0xe9) is not UTF-8"],
    ),
    "utf-16": ({"train.tsv": NAMED.encode("utf-16")}, {}, ["train.tsv, line 1: this is UTF-16"]),
    "open quote": (
        {"train.csv": 'pos,fine\nneg,"bad\npos,x\n'},
        {"train": "train.csv"},
        ["line 2: unbalanced quotes"],
    ),
    "one class": ({"train.tsv": "pos\ta\npos\tb\n"}, {}, ["every row has the label 'pos'", "at least two classes"]),
    "unknown label": (
        {"train.tsv": NAMED, "dev.tsv": "label\ttext\nneg\tx\nPOS\ty\nPOS\tz\n"},
        {"validation": "dev.tsv"},
        ["dev.tsv, line 3: the label 'POS' does not occur", "Known: neg, pos.", "1 more row like it"],
    ),
    "score is a word": (
        {"train.tsv": SCORES + "high\tx\n"},
        {"kind": "regression"},
        ["line 51: the label 'high' is not a finite"],
    ),
    "score is nan": (
        {"train.tsv": SCORES + "nan\tx\n"},
        {"kind": "regression"},
        ["line 51: the label 'nan' is not a finite"],
    ),
    "score is inf": (
        {"train.tsv": SCORES, "test.tsv": SCORES + "inf\tx\n"},
        {"test": "test.tsv"},
        ["test.tsv, line 51: the label 'inf' is not a finite"],
    ),
    "a word among scores": (
        {"train.tsv": SCORES + "high\tx\n"},
        {},
        ["51 different labels", "not 'high' (", "line 51"],
    ),
    "columns swapped": (
        {"train.tsv": "".join(f"text {i}\tpos\n" for i in range(60))},
        {},
        ["60 different labels", "data.label"],
    ),
    "invalid json": (
        {"train.jsonl": JSON + '{"label": "n"\n'},
        {"train": "train.jsonl"},
        ["line 41: not valid JSON", "one whole"],
    ),
    "json array": (
        {"train.json": '[{"label": "n", "text": "x"}]'},
        {"train": "train.json"},
        ["line 1: a JSON list", "jq -c"],
    ),
    "json number": ({"train.jsonl": JSON + "7\n"}, {"train": "train.jsonl"}, ["line 41: a number, not a JSON object"]),
    "json key": ({"train.jsonl": JSON + '{"label": "n"}\n'}, {"train": "train.jsonl"}, ["line 41: has no 'text'"]),
    "json text": (
        {"train.jsonl": JSON + '{"label": "n", "text": 7}\n'},
        {"train": "train.jsonl"},
        ["line 41: 'text' is a number, not a string"],
    ),
    "json half a character": (
        {"train.jsonl": JSON + '{"label": "n", "text": "\\ud83d"}\n'},
        {"train": "train.jsonl"},
        ["line 41: holds half a character"],
    ),
    "only a tab": ({"train.tsv": NAMED + "\t\n"}, {}, ["line 42: the text ('text') is empty"]),
    "no header after all": (
        {"train.tsv": "question\twhat\nanswer\tthat\n"},
        {},
        ["which column holds the labels", "A file without a header has the label first"],
    ),
    "json label": (
        {"train.jsonl": JSON + '{"label": ["n"], "text": "x"}\n'},
        {"train": "train.jsonl"},
        ["line 41: the label is a list", "task=multi_label"],
    ),
    "json null": (
        {"train.jsonl": JSON + '{"label": null, "text": "x"}\n'},
        {"train": "train.jsonl"},
        ["line 41: the label ('label') is empty"],
    ),
    "corrupt parquet": (
        {"train.parquet": b"PAR1 not really"},
        {"train": "train.parquet"},
        ["cannot be read as Parquet"],
    ),
    "pair in one split": (
        {"train.tsv": PAIRS, "dev.tsv": GOOD},
        {"validation": "dev.tsv"},
        ["dev.tsv", "has one text per row", "train.tsv has two", "data.text_pair"],
    ),
    "pair column in one split": (
        {"train.tsv": "label\ta\tb\n" + PAIRS, "dev.tsv": "label\ta\n" + GOOD},
        {"validation": "dev.tsv", "text": "a", "text_pair": "b"},
        ["dev.tsv: has no column 'b' (data.text_pair)"],
    ),
    "unlabelled without pairs": (
        {"train.tsv": PAIRS, "more.txt": "one\n"},
        {"unlabelled": "more.txt"},
        ["more.txt, line 1: expected text and second text; got 1 field"],
    ),
    "too few rows to cut": (
        {"train.tsv": "pos\ta\nneg\tb\n"},
        {},
        ["2 rows cannot be cut into training and test rows", "data.test"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_in_one_message(tmp_path: Path, case: str) -> None:
    files, settings, fragments = BAD[case]
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    settings = {"train": "train.tsv", **settings}
    kind = str(settings.pop("kind", "auto"))
    for name in ("train", "validation", "test", "unlabelled"):
        if name in settings:
            settings[name] = str(tmp_path / settings[name])
    with pytest.raises(DataError) as caught:
        refuse_unseen(Files(**settings).load(kind, 1))  # as a teacher does that is trained here
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_a_bad_row_of_parquet_is_named_by_its_row(tmp_path: Path) -> None:
    rows = [{"label": "np"[i % 2], "text": f"t{i}"} for i in range(40)] + [{"label": "n", "text": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 41: the text \('text'\) is empty"):
        Files(train=str(tmp_path / "a.parquet")).load("auto", 1)
