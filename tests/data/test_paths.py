"""Rows in several files, named by a pattern, and in archives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from compress.data import Files
from compress.errors import DataError
from compress.settings import all_faults
from tests.data.test_files import ROWS, write


def packed(path: Path, content: bytes) -> Path:
    """Write an archive, whose last suffix says of which kind."""
    with pa.CompressedOutputStream(str(path), {".gz": "gzip", ".zst": "zstd"}[path.suffix]) as file:
        file.write(content)
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet", ".tsv.gz", ".csv.zst", ".jsonl.gz"])
def test_rows_in_several_files_are_those_of_one(tmp_path: Path, suffix: str) -> None:
    whole = Files(train=write(tmp_path / "whole.jsonl", ROWS)).load("auto", 1)
    for number, start in enumerate(range(0, len(ROWS), 15)):
        inside = suffix.removesuffix(".gz").removesuffix(".zst")
        plain = Path(write(tmp_path / f"rows-{number}{inside}", ROWS[start : start + 15]))
        if inside != suffix:
            packed(tmp_path / f"rows-{number}{suffix}", plain.read_bytes())
            plain.unlink()
    pattern = str(tmp_path / f"rows-*{suffix}")
    files = Files(train=pattern)
    assert list(all_faults(files)) == []
    dataset = files.load("auto", 1)
    assert dataset.fingerprint == whole.fingerprint
    assert dataset.train.ids == whole.train.ids
    assert dataset.name == pattern
    assert dataset.records == {"train": 40}


def test_a_bad_row_of_several_files_is_found_by_file_and_line(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"rows-{number}.tsv", ROWS[10 * number : 10 * number + 10])
    bad = tmp_path / "rows-1.tsv"
    bad.write_text(bad.read_text() + "pos\n")
    (tmp_path / "rows-2.tsv").write_text("label\ttext\npos\n")
    with pytest.raises(DataError, match=r"rows-1\.tsv, line 12: expected 2 fields.* 1 more line of these files"):
        Files(train=str(tmp_path / "rows-*.tsv")).load("auto", 1)
    (tmp_path / "rows-2.tsv").write_text("label\ttext\n\tno label\n")
    bad.write_text(bad.read_text().removesuffix("pos\n"))
    with pytest.raises(DataError, match=r"rows-2\.tsv, line 2: the label \('label'\) is empty"):
        Files(train=str(tmp_path / "rows-*.tsv")).load("auto", 1)


def test_files_of_a_pattern_need_the_same_columns(tmp_path: Path) -> None:
    write(tmp_path / "rows-0.csv", ROWS)
    write(tmp_path / "rows-1.csv", [{"label": "neg", "sentence": "another name"}])
    with pytest.raises(DataError, match=r"rows-1\.csv: has no column 'text', which .*rows-0\.csv has"):
        Files(train=str(tmp_path / "rows-*.csv")).load("auto", 1)


def test_patterns_that_name_no_rows_are_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "rows-0.tsv", ROWS)
    write(tmp_path / "rows-1.jsonl", ROWS)
    (tmp_path / "empty.tsv").touch()
    packed(tmp_path / "table.parquet.gz", b"PAR1")
    cases = {
        "none-*.tsv": "matches no file",
        "rows-*": r"names files with \.jsonl and \.tsv",
        "*.tsv": r"names .*empty\.tsv, which has no rows",
        "table.parquet.gz": r"is an archive of a \.parquet file.*Unpack it",
    }
    for pattern, reason in cases.items():
        (fault,) = all_faults(Files(train=str(tmp_path / pattern)))
        assert re.search(reason, str(fault)), str(fault)
        with pytest.raises(DataError, match=reason):
            Files(train=str(tmp_path / pattern)).load("auto", 1)
    (fault,) = all_faults(Files(train=str(tmp_path / "rows-*.tsv"), test=train))
    assert "is the file of data.train" in str(fault)
    write(tmp_path / "rows-2.tsv", ROWS)
    (fault,) = all_faults(Files(train=str(tmp_path / "rows-*.tsv"), test=train))
    assert "rows-0.tsv, a file of data.train" in str(fault)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_archive_is_found_by_line(tmp_path: Path, suffix: str) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS * 2000).encode()
    path = packed(tmp_path / f"rows.jsonl{suffix}", lines)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"rows\.jsonl\S+, line [\d,]+: cannot be unpacked .*Copy the archive again"):
        Files(train=str(path)).load("auto", 1)
    path.write_bytes(b"label\ttext\n" * 9)
    with pytest.raises(DataError, match="line 1: cannot be unpacked"):
        Files(train=str(path)).load("auto", 1)


def test_a_text_file_of_unlabelled_rows_may_be_packed(tmp_path: Path) -> None:
    packed(tmp_path / "more.txt.gz", b"one\n\ntwo\n")
    dataset = Files(train=write(tmp_path / "train.tsv", ROWS), unlabelled=str(tmp_path / "more.txt.gz")).load("auto", 1)
    assert dataset.unlabelled is not None
    assert dataset.unlabelled.texts == ("one", "two")
