"""Which rows are equal: the same whether all are looked at together or in passes."""

import random
import tracemalloc

import numpy as np
import pytest

from compress import mapped
from compress.data import equal_rows
from compress.data.equal_rows import Repeats, among, numbers_of


@pytest.fixture(params=[5, 10_000])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    for module in (equal_rows, mapped):
        monkeypatch.setattr(module, "PART", request.param)
    return int(request.param)


@pytest.mark.usefixtures("at_once")
def test_repeated_rows_lead_to_the_first_of_them() -> None:
    texts = random.Random(2).choices("abcdefghijklmnop", k=40)
    repeats = Repeats.of(numbers_of(texts))
    assert repeats.first.tolist() == [texts.index(text) for text in texts]
    leaders = [row for row, text in enumerate(texts) if text not in texts[:row]]
    assert repeats.leaders().tolist() == leaders
    assert repeats.count.tolist() == [texts.count(text) * (row in leaders) for row, text in enumerate(texts)]
    followers = [
        pair for rows, first in repeats.followers() for pair in zip(rows.tolist(), first.tolist(), strict=True)
    ]
    assert followers == [(row, texts.index(text)) for row, text in enumerate(texts) if row not in leaders]


@pytest.mark.usefixtures("at_once")
def test_shared_rows_are_found_whichever_side_has_more() -> None:
    draw = random.Random(3)
    ours, theirs = draw.choices("abcdefghijklmnop", k=40), draw.choices("abcdefg", k=9)
    for left, right in ((ours, theirs), (theirs, ours)):
        found = among(numbers_of(left), numbers_of(right))
        assert found.tolist() == [text in right for text in left]


def test_no_rows_repeat_none() -> None:
    repeats = Repeats.of(numbers_of([]))
    assert len(repeats.leaders()) == 0
    assert list(repeats.followers()) == []
    assert among(numbers_of(["a"]), numbers_of([])).tolist() == [0]


def test_looking_for_repeated_rows_needs_no_more_memory_when_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equal_rows, "PART", 2**14)
    numbers = np.random.default_rng(0).integers(0, 2**63, 2**20, dtype=np.uint64)
    most: dict[int, int] = {}
    for rows in (2**18, 2**20):
        tracemalloc.start()
        try:
            repeats = Repeats.of(numbers[:rows])
            most[rows] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(repeats.leaders()) == rows
    assert most[2**20] < 1.5 * most[2**18]
