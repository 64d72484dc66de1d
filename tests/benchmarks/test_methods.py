"""The table of methods: its rows are the script's, and the defaults of distillation are its best row."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from compress.distill.stage import Distill

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmarks_methods", FOLDER / "methods.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks_methods"] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)  # where a script finds the others
        spec.loader.exec_module(module)
        yield module


def means() -> dict[tuple[str, str], float]:
    """Return the mean accuracy of each student and method in the first table."""
    table = (FOLDER / "README.md").read_text().split("## The same with all rows")[0]
    cells = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if line.startswith("| ")]
    return {(row[1], row[2]): float(row[4]) for row in cells if row[4] != "mean"}


def test_the_defaults_are_the_best_of_what_trains_once(script: ModuleType) -> None:
    measured = means()
    once = [
        method
        for method in script.METHODS
        if method.student == "3 layers" and method.generations == 1 and not method.prepare and not method.augment
    ]
    best = max(once, key=lambda method: measured[method.student, method.name])
    assert Distill().losses == best.losses


def test_every_method_of_the_script_has_a_row(script: ModuleType) -> None:
    measured = means()
    assert [m.name for m in script.METHODS if m.student == "3 layers" and (m.student, m.name) not in measured] == []
