"""The cost of every stage, in the text and on the page; figures that a machine does not tell make no column."""

from __future__ import annotations

from typing import Any

from compress.report import costs
from compress.report.document import parse, plain
from compress.report.html import to_html
from compress.report.markdown import to_markdown

SPENT = {"seconds": 200.0, "processor_seconds": 380.5, "peak_memory_mib": 1234.0, "memory_growth_mib": 56.0}


def with_costs(report: dict[str, Any], **usage: float) -> dict[str, Any]:
    stages = [
        {"stage": "teacher", "products": 2, "reused": 2, "usage": SPENT | usage},
        {"stage": "distill", "products": 2, "reused": 1, "usage": SPENT},
        {"stage": "nothing"},
        {"stage": "benchmark", "products": 1, "usage": SPENT},
    ]
    return report | {"costs": stages, "usage": {"seconds": 61.0, "processor_seconds": 70.0}}


def test_each_stage_says_what_it_took_and_when(report: dict[str, Any]) -> None:
    parsed = parse(with_costs(report, processor_joules=4200.0))
    assert costs.headings(parsed) == [
        "Stage", "Time", "Processor time", "Peak memory MiB", "Growth MiB", "Processors kJ", "Computed",
    ]  # fmt: skip
    assert costs.rows(parsed) == [
        ["teacher", "3 min 20 s", "6 min 20 s", "1,234", "56", "4.2", "earlier"],
        ["distill", "3 min 20 s", "6 min 20 s", "1,234", "56", "–", "in part earlier"],
        ["benchmark", "3 min 20 s", "6 min 20 s", "1,234", "56", "–", "now"],
        ["the whole run", "1 min 1 s", "1 min 10 s", "–", "–", "–", "now"],
    ]
    assert plain(parsed)["costs"][0]["usage"]["processor_joules"] == 4200.0
    for written in (to_markdown(parsed), to_html(parsed)):
        assert all(cell in written for line in costs.rows(parsed) for cell in line)


def test_energy_that_nothing_counts_is_no_column_and_no_zero(report: dict[str, Any]) -> None:
    parsed = parse(with_costs(report))
    assert not any("kJ" in heading for heading in costs.headings(parsed))
    assert "did not tell: energy" in costs.in_words(parsed)
    assert "joules" not in str(plain(parsed)["costs"])


def test_a_report_without_costs_has_no_such_section(report: dict[str, Any]) -> None:
    assert f"## {costs.TITLE}" not in to_markdown(parse(report))
