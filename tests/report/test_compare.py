"""Comparisons say what may not be compared."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from compress.errors import CompressError
from compress.report.compare import comparison_html
from compress.report.differences import differences, labelled
from compress.report.document import parse

Change = Callable[[dict[str, Any]], object]


def threads(report: dict[str, Any]) -> None:
    for entry in [*report["stages"], *report["artifacts"]]:
        for timing in entry["latency"]:
            timing["threads"] = 2


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda report: report["dataset"].update(test_fingerprint="other"), "measured on different test rows"),
        (lambda report: report["dataset"]["rows"].update(test=10), "different numbers of test rows"),
        (lambda report: report["machine"].update(cpu="Another"), "different machines"),
        (lambda report: report["machine"].update(instructions=["avx512", "vnni"]), "different machines"),
        (threads, "different devices or threads"),
        (lambda report: report["versions"].update(torch="2.0"), "different versions of PyTorch"),
        (lambda report: report["settings"]["teacher"].update(model="other"), "different teachers"),
        (lambda report: report["task"].update(main_metric="f1"), "different main metrics"),
    ],
)
def test_each_difference_that_matters_is_told_once(report: dict[str, Any], change: Change, warning: str) -> None:
    other = copy.deepcopy(report)
    change(other)
    found = differences([("one", parse(report)), ("two", parse(other))])
    assert len(found) == 1
    assert warning in found[0]
    assert "one:" in found[0]
    assert warning in comparison_html([("one", parse(report)), ("two", parse(other))])


def test_other_training_rows_leave_accuracies_comparable(report: dict[str, Any]) -> None:
    other = copy.deepcopy(report)
    other["dataset"].update(fingerprint="other")  # as another seed cuts other validation rows
    assert differences([("one", parse(report)), ("two", parse(other))]) == []


def test_equal_conditions_give_no_warning(report: dict[str, Any]) -> None:
    other = copy.deepcopy(report) | {"recipe": "six_layer", "seed": 14}
    assert differences([("one", parse(report)), ("two", parse(other))]) == []
    page = comparison_html([("one", parse(report)), ("two", parse(other))])
    assert '<ul class="found warning">' not in page
    assert "one: dynamic" in page
    assert page.count("<svg viewBox") >= 2


def test_labels_are_escaped_and_empty_runs_are_shown(report: dict[str, Any]) -> None:
    page = comparison_html([("<script>", parse(report)), ("empty", parse({"schema": 2}))])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_labels_that_are_paths_leave_out_what_they_share(report: dict[str, Any]) -> None:
    def labels(*paths: str) -> list[str]:
        return [label for label, _ in labelled([(path, parse(report)) for path in paths])]

    assert labels("runs/quick/a", "runs/quick/b") == ["a", "b"]
    assert labels("runs/quick/a", "runs/six/a") == ["quick/a", "six/a"]
    assert labels("runs/a", "runs/a") == ["a", "a"]
    assert labels("runs/a") == ["runs/a"]


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(CompressError, match="nothing to compare"):
        comparison_html([])
