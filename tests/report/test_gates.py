"""What a report says of artifacts that lose too much, and of rows that are too few to tell."""

from __future__ import annotations

from typing import Any

import pytest

from compress.report.card import to_rejection
from compress.report.document import parse, plain
from compress.report.html import to_html
from compress.report.markdown import to_markdown
from compress.report.verdict import conclude
from tests.report.conftest import difference
from tests.report.test_table import printed

SENTENCE = (
    "Accuracy falls by 12.5 points on 600 validation rows (95 % bound of the drop: 15.1); "
    "max_drop allows 1 point. The costliest parts, each alone in int8: head (9 points), layer 2 (loss +0.31). "
    "Kept in its place: dynamic-mixed."
)


def gate(outcome: str, **more: Any) -> dict[str, Any]:
    return {
        "outcome": outcome, "metric": "accuracy", "rows": 600, "max_drop": 1.0, "drop": 12.5, "bound": 15.06, **more,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def chosen(report: dict[str, Any]) -> None:
    """The example's artifacts answer validation rows as the student does."""
    for artifact in report["artifacts"]:
        artifact["validation"] = {"rows": 600, "difference": difference(0.0)}


@pytest.fixture
def rejecting(report: dict[str, Any]) -> dict[str, Any]:
    """The example, whose dynamic form was rejected for one with parts in fp32."""
    report["artifacts"][2]["name"] = "dynamic-mixed"
    costs = [{"part": "head", "loss": 0.8, "drop": 0.09}, {"part": "layer 2", "loss": 0.31}]
    report["rejected"] = [
        {
            "name": "dynamic", "runtime": "onnxruntime", "precision": "int8", "path": "rejected/dynamic",
            "gate": gate("exceeds"), "instead": "dynamic-mixed", "costs": costs,
        }
    ]  # fmt: skip
    return report


def test_what_was_rejected_comes_first_with_what_cost_most_and_what_was_kept(rejecting: dict[str, Any]) -> None:
    report = conclude(parse(rejecting))
    assert report.shipping is not None
    assert report.shipping.reasons[0].detail == SENTENCE
    assert report.recommended != "dynamic"
    shown = " ".join(printed(plain(report), 100).split())
    assert shown.startswith(f"SHIP WITH CARE • dynamic is rejected. {SENTENCE}")
    for page in (to_html(report), to_markdown(report).replace("\\", "")):
        assert SENTENCE in page
        assert page.index(SENTENCE) < page.index("recommended artifact")
        assert "head, layer 2" in page
    warned = to_rejection(report.rejected[0]).replace("\\", "")
    assert warned.startswith("# dynamic: do not use")
    assert f"It is rejected: a{SENTENCE[1:]}" in warned
    assert "| head | 0.800 | 9 |" in warned


def test_an_export_of_which_nothing_is_left_says_so(rejecting: dict[str, Any]) -> None:
    del rejecting["artifacts"][1:]
    rejecting["artifacts"][0]["path"] = "student"
    rejecting["rejected"][0] |= {"instead": "", "costs": [], "why_no_costs": "the parts cannot be told apart"}
    report = conclude(parse(rejecting))
    assert report.nothing_passes
    assert report.shipping is not None
    first, second, *_ = report.shipping.reasons
    assert (first.rule, first.decision) == ("nothing_passes", "do not ship")
    assert second.detail.endswith(
        "Which parts cost most is not known: the parts cannot be told apart. No gentler form was kept."
    )


def test_rows_that_are_too_few_to_tell_are_named_with_how_many_it_takes(report: dict[str, Any]) -> None:
    few = gate("too few rows", drop=0.0, bound=1.0236, needed=2300)
    report["artifacts"][2]["gate"] = few
    report["artifacts"][3]["gate"] = few | {"bound": 2.04, "needed": 4100}
    report["artifacts"][1]["gate"] = gate("holds", drop=0.0, bound=0.0)
    found = conclude(parse(report))
    assert not found.nothing_passes
    assert found.recommended == "dynamic"
    assert found.shipping is not None
    (unproven,) = [reason for reason in found.shipping.reasons if reason.rule == "unproven"]
    assert unproven.detail.startswith(
        "600 validation rows are too few to show that dynamic loses at most 1 point of accuracy (95 % bound of the "
        "drop: 1.02): about 2,300 could."
    )
    assert found.verdicts[-1] == (
        "600 validation rows are too few to show that static loses at most 1 point of accuracy (95 % "
        "bound of the drop: 2): about 4,100 could. Give more (data.validation, data.validation_share), or look at the "
        "interval on the test rows before you ship."
    )
