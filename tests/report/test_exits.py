"""Early exits in the reports: the table of thresholds, the words, and what is there without them."""

from __future__ import annotations

from typing import Any

import pytest

from compress.report import exits
from compress.report.document import parse
from compress.report.html import to_html
from compress.report.markdown import to_markdown
from tests.report.test_html import HOSTILE, Page


def record(rule: str, thresholds: list[float], chosen: float) -> dict[str, Any]:
    tried = [
        {"threshold": threshold, **{
            split: {"metric": 0.9 - 0.01 * place, "layers": 6.0 - place / 4} for split in ("validation", "test")
        }}
        for place, threshold in enumerate(thresholds)
    ]  # fmt: skip
    return {"rule": rule, "threshold": chosen, "layers": 6, "average_layers": 4.25, "rows_by_layer": [0, 30, 0, 1200],
            "batches": {"8": 5.5}, "tried": tried}  # fmt: skip


@pytest.fixture
def with_exits(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report whose artifacts have exits: two forms of one rule, one of another."""
    entropy = record("entropy", [0.05 * number for number in range(21)], 0.05)
    for artifact, details in zip(
        report["artifacts"], (entropy, entropy, record("patience", [1, 2, 3], 2)), strict=False
    ):
        artifact["details"] = {"exits": details}
    return report


def test_each_rule_is_there_once_with_some_thresholds_and_the_chosen_one(with_exits: dict[str, Any]) -> None:
    headings, rows = exits.table(parse(with_exits))
    assert headings[2:] == ["Layers, validation", "Accuracy %, validation", "Layers, test", "Accuracy %, test"]
    assert [row[0] for row in rows] == ["entropy", "★ entropy", *["entropy"] * 8, "patience", "★ patience", "patience"]
    assert rows[1][1:] == ["0.05", "5.75", "89.0", "5.75", "89.0"]
    assert [row[1] for row in rows[-3:]] == ["1", "2", "3"]
    words = exits.in_words(parse(with_exits))
    assert "by entropy, 4.25 of 6 (30 after layer 2, 1,200 after layer 4); by patience, 4.25 of 6" in words


def test_page_and_markdown_show_every_figure(with_exits: dict[str, Any]) -> None:
    page, markdown = Page(to_html(parse(with_exits))), to_markdown(parse(with_exits))
    assert exits.TITLE in page.text
    for row in exits.table(parse(with_exits))[1]:
        assert " ".join(row) in page.text
        assert "| " + " | ".join(row) + " |" in markdown


def test_without_exits_there_is_no_word_of_them(report: dict[str, Any]) -> None:
    assert exits.TITLE not in to_html(parse(report)) + to_markdown(parse(report))


def test_what_is_missing_is_a_dash_and_nothing_that_is_said_is_trusted(with_exits: dict[str, Any]) -> None:
    details = record(HOSTILE, [0.5], 0.5)
    details["tried"][0] = {"threshold": 0.5}
    del details["average_layers"], details["rows_by_layer"]
    for artifact in with_exits["artifacts"]:
        artifact["details"] = {"exits": details}
    assert HOSTILE not in to_html(parse(with_exits))
    assert exits.table(parse(with_exits))[1][0][2:] == ["–"] * 4
