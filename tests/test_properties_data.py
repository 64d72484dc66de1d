"""Whatever bytes a data file holds, the reader ends soon, in a data set or in one message."""

from __future__ import annotations

import io
import json
import random
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.data import Files
from compress.errors import CompressError
from compress.run.check import told

SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
FEW, MANY = 40, 2000  # files for each kind
SECONDS = 20.0  # that no small file may take

LABELS = st.sampled_from(
    ["pos", "neg", "Pos", "1", "0", "1.5", "nan", "-1", "inf", "none", "", " ", "9" * 400, "1e39", "٣"]
)
SIGNS = st.sampled_from(list("ab ,;\t\"'\n\r\x00\u2028\x85\ufeff{}[]:é漢\\|"))
TEXTS = st.one_of(st.text(max_size=12), st.lists(SIGNS, max_size=12).map("".join))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), LABELS, TEXTS, st.lists(st.integers(), max_size=2)
)
KEYS = st.sampled_from(["text", "label", "Text", "text_b", "sentence1", "sentence2", "aspect", "id", ""])


def tries(count: int) -> settings:
    """Return the settings of a test that has its own limit of time."""
    return settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def ends_well(content: bytes, suffix: str, kind: str = "auto") -> None:
    """Read a file with this content; anything but a message, a data set or a long wait passes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"train{suffix}")
        path.write_bytes(content)
        start = time.perf_counter()
        try:
            assert told(Files(train=str(path)).load(kind, 1))
        except CompressError as error:
            message = str(error)
            assert "train" in message
            assert len(message) < 3000
        assert time.perf_counter() - start < SECONDS


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file of rows that are almost right, in one of the text formats."""
    suffix = draw(st.sampled_from([".tsv", ".csv", ".jsonl"]))
    if suffix == ".jsonl":
        objects = draw(st.lists(st.dictionaries(KEYS, SCALARS, max_size=4), max_size=12))
        return suffix, "\n".join(json.dumps(entry) for entry in objects).encode()
    sign = draw(st.sampled_from(["\t", ",", ";"]))
    header = draw(st.one_of(st.just([]), st.lists(KEYS, min_size=1, max_size=4)))
    rows = draw(st.lists(st.tuples(LABELS, TEXTS) | st.tuples(LABELS, TEXTS, TEXTS), max_size=30))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = [sign.join(header)] if header else []
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return suffix, end.join(lines + [sign.join(row) for row in rows]).encode(encoding, "replace")


def valid(suffix: str) -> bytes:
    """Return the content of a good file."""
    rows = [{"label": ("neg", "pos")[i % 2], "text": f"film number {i}", "id": i, "share": i / 7} for i in range(40)]
    if suffix == ".parquet":
        features = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
        numbered = [row | {"label": i % 2} for i, row in enumerate(rows)]
        table = pa.Table.from_pylist(numbered)
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()
    if suffix in {".jsonl", ".json"}:
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    sign = "\t" if suffix == ".tsv" else ","
    return "\n".join(sign.join(map(str, row)) for row in [rows[0].keys(), *(row.values() for row in rows)]).encode()


def mutated(content: bytes, seed: int) -> bytes:
    """Return the content with bytes changed, taken out, doubled, or the end cut off."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(content) + 1)
        other = place + chance.choice([1, 1, 1, 8, 100])
        content = chance.choice(
            [
                content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :],
                content[:place] + content[other:],
                content[:other] + content[place:],
                content[:place],
                content[:place] + chance.choice([b"\t", b",", b'"', b"\n", b"\r", b"\x00", b"NaN"]) + content[place:],
            ]
        )
    return content


@pytest.mark.parametrize("suffix", SUFFIXES)
@tries(FEW)
@given(content=st.binary(max_size=200))
def test_any_bytes_end_in_a_message(suffix: str, content: bytes) -> None:
    ends_well(content, suffix)


@tries(3 * FEW)
@given(table=tables(), task=st.sampled_from(["auto", "classification", "regression"]))
def test_rows_that_are_almost_right_end_in_a_message_or_in_rows(table: tuple[str, bytes], task: str) -> None:
    ends_well(table[1], table[0], task)


@pytest.mark.parametrize("suffix", SUFFIXES)
@tries(FEW)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_ends_in_a_message_or_in_rows(suffix: str, seed: int) -> None:
    ends_well(mutated(valid(suffix), seed), suffix)


@tries(FEW)
@given(values=st.lists(SCALARS, min_size=1, max_size=20))
def test_any_values_of_parquet_end_in_a_message_or_in_rows(values: list[object]) -> None:
    try:
        table = pa.table({"text": [f"film {i}" for i in range(len(values))], "label": pa.array(values)})
    except (pa.ArrowException, OverflowError):
        return  # no column can hold them together
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    ends_well(buffer.getvalue(), ".parquet")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
@tries(MANY)
@given(seed=st.integers(0, 2**32))
def test_many_damaged_files_end_in_a_message_or_in_rows(suffix: str, seed: int) -> None:
    ends_well(mutated(valid(suffix), seed), suffix)


@pytest.mark.slow
@tries(MANY)
@given(table=tables(), task=st.sampled_from(["auto", "classification", "regression"]))
def test_many_rows_that_are_almost_right_end_in_a_message_or_in_rows(table: tuple[str, bytes], task: str) -> None:
    ends_well(table[1], table[0], task)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
@tries(MANY)
@given(content=st.binary(max_size=400))
def test_many_files_of_any_bytes_end_in_a_message(suffix: str, content: bytes) -> None:
    ends_well(content, suffix)
