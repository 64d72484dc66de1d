"""Columns in files: what was written is what is read, and memory stays small."""

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.data.dataset import Split
from compress.mapped import MappedColumn, StoredTexts, mapped


@given(st.lists(st.text(max_size=30), max_size=40))
def test_texts_come_back_whatever_they_hold(texts: list[str]) -> None:
    stored = StoredTexts(texts)
    assert list(stored) == texts
    assert [stored[place] for place in range(-len(texts), len(texts))] == texts + texts
    assert stored[1:7:2] == tuple(texts[1:7:2])
    assert stored == tuple(texts)
    assert stored != [*texts, "more"]
    with pytest.raises(IndexError):
        stored[len(texts)]


def test_a_text_is_not_equal_to_its_letters() -> None:
    assert StoredTexts(["a", "b"]) != "ab"


def test_lone_surrogates_come_back() -> None:
    assert list(StoredTexts(["a\ud800b"])) == ["a\ud800b"]


def test_parts_are_read_one_after_the_other() -> None:
    column = MappedColumn(np.int64)
    for part in ([1, 2], [], [3]):
        column.append(part)
    read = column.mapped()
    assert read.tolist() == [1, 2, 3]
    assert read.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 5
    assert mapped(np.zeros(0, np.int32)).dtype == np.int32


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_small_columns_cost_no_open_file_and_large_ones_close_theirs() -> None:
    before = open_files()
    splits = [Split((f"text {i}",) * 5, ("second",) * 5) for i in range(50)]
    assert open_files() == before
    assert splits[7].take(np.array([1, 0])).texts == ("text 7", "text 7")
    large = mapped(np.arange(1_000_000))
    assert open_files() == before + 1
    assert large[-1] == 999_999
    assert large.sum() == 499_999_500_000
    del large
    gc.collect()
    assert open_files() == before


def test_rows_are_kept_in_no_memory_of_the_process() -> None:
    # As Python counts it, not the system: what a process holds depends on the tests before.
    tracemalloc.start()
    try:
        stored = StoredTexts(f"a text of some forty letters, number {i}" for i in range(200_000))
        gc.collect()
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(stored) == 200_000
    assert stored[-1] == "a text of some forty letters, number 199999"
    assert kept < 50_000  # bytes; the texts are 8,000,000, as objects 18,000,000
    assert most < 4_000_000
