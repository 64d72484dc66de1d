"""The benchmark of searches: a row of a finished search and of its runs, and the table."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmarks_frontier", FOLDER / "frontier.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks_frontier"] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec.loader.exec_module(module)
        yield module


def test_a_speed_that_a_seed_lacks_has_no_median(script: ModuleType) -> None:
    assert script.middle([1.0, 9.0, 2.0]) == 2.0
    assert script.middle([1.0, None, 2.0]) is None


def test_the_table_has_means_shares_and_speeds_of_each_search(script: ModuleType) -> None:
    row: dict[str, Any] = {
        "asked": 0.95, "student": "2 layers", "artifact": "dynamic", "metrics": [0.8, 0.9], "keeps": 0.944,
        "eager": 26.65, "int8": None, "over_int8": "-1.00 [-2.0, +0.1]",
    }  # fmt: skip
    *_, last = script.table([row]).splitlines()
    assert last == "| 95% | 2 layers | dynamic | 85.00 | 94.4% | 26.6 | – | -1.00 [-2.0, +0.1] |"
