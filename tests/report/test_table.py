"""The terminal's tables."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from compress.report.document import parse
from compress.report.table import print_comparison, print_report


def printed(report: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        print_report(parse(report), console)
    return capture.get()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_table_fits_a_terminal(report: dict[str, Any], width: int) -> None:
    lines = printed(report, width).splitlines()
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if "★ dynamic" in line)
    assert row.split() == ["★", "dynamic", "int8", "84.3", "±1.5", "97.9", "17.6", "3.10", "6.8×", "98.9"]


def test_the_conditions_stand_under_the_table(report: dict[str, Any]) -> None:
    text = " ".join(printed(report).split())
    assert "2,163 test rows" in text
    assert "one row at its real length, cpu, 1 thread" in text
    assert all(line in text for line in report["verdicts"])


@pytest.mark.parametrize(
    ("decision", "start"),
    [("ship", "The recommended artifact"), ("ship with care", "The recommended artifact"), ("do not ship", "At best,")],
)
def test_whether_to_ship_is_the_first_line(report: dict[str, Any], decision: str, start: str) -> None:
    report["shipping"]["decision"] = decision
    first, reason, _, sentence, *_ = printed(report).strip().splitlines()
    assert (first.strip(), reason) == (decision.upper(), "• The teacher is weak. Train it.")
    assert sentence.startswith(start)


def test_names_are_not_markup(report: dict[str, Any]) -> None:
    report["artifacts"][1]["name"] = "[red]x[/nothing]"
    assert "[red]x[/nothing]" in printed(report, 160)


def test_an_empty_report_prints() -> None:
    assert "No artifact is recommended." in printed({"schema": 2})


def test_a_comparison_prints_a_line_a_run_and_warns(report: dict[str, Any]) -> None:
    other = report | {"machine": report["machine"] | {"cpu": "Another"}}
    console = Console(width=120)
    with console.capture() as capture:
        print_comparison([("one", parse(report)), ("two", parse(other))], console)
    lines = capture.get().splitlines()
    assert sum(line.split()[:2] in (["one", "dynamic"], ["two", "dynamic"]) for line in lines) == 2
    assert "Warning: The runs ran on different machines" in capture.get()
