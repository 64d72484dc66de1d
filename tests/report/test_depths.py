"""A model at every depth in the reports: the table, the picture, and what is there when figures are missing."""

from __future__ import annotations

from typing import Any

import pytest

from compress.report.document import parse
from compress.report.html import to_html
from compress.report.markdown import to_markdown
from compress.report.words import depth_table, depths
from tests.report.conftest import scored
from tests.report.test_html import HOSTILE, Page


def curve(name: str, rate: float, kept: list[list[int]], order: str = "every_other") -> dict[str, Any]:
    cuts = [{"layers": layers, **scored(0.8 - 0.1 / len(layers))} for layers in kept]
    return {"name": name, "layer_drop": rate, "order": order, "cuts": cuts}


SPREAD = [[5], [2, 5], [1, 3, 5], [1, 2, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
CHOSEN = [[1], [1, 2], [1, 2, 6], [1, 2, 5, 6], [1, 2, 4, 5, 6], [1, 2, 3, 4, 5, 6]]


def test_models_that_keep_the_same_layers_share_the_column_that_says_which(report: dict[str, Any]) -> None:
    report["depths"] = [curve("distill", 0.2, SPREAD), curve("twin", 0.0, SPREAD)]
    headings, rows = depth_table(parse(report))
    assert headings == ["Depth", "distill: LayerDrop 0.2", "twin: no LayerDrop", "Layers that are left"]
    assert [row[0] for row in rows] == ["6", "5", "4", "3", "2", "1"]
    assert [row[3] for row in rows] == ["1–6", "1–5", "1, 2, 4, 5", "1, 3, 5", "2, 5", "5"]
    assert rows[-1][1] == rows[-1][2] == "70.0 [68.1, 71.9]"


def test_models_that_keep_other_layers_have_a_column_each(report: dict[str, Any]) -> None:
    report["depths"] = [curve("distill", 0.2, SPREAD, "loss"), curve("twin", 0.0, CHOSEN, "loss")]
    headings, rows = depth_table(parse(report))
    assert headings[1::2] == ["distill: LayerDrop 0.2", "twin: no LayerDrop"]
    assert headings[2::2] == ["Layers that are left"] * 2
    assert [(row[2], row[4]) for row in rows][1:3] == [("1–5", "1, 2, 4–6"), ("1, 2, 4, 5", "1, 2, 5, 6")]
    assert "that the loss misses least" in depths(parse(report))


@pytest.mark.parametrize("metric", ["accuracy", "pearson"])
def test_page_and_markdown_show_every_figure(metric: str, report: dict[str, Any]) -> None:
    report["depths"] = [curve("distill", 0.2, SPREAD), curve("twin", 0.0, CHOSEN)]
    report["task"]["main_metric"] = metric
    for item in report["depths"]:
        for cut in item["cuts"]:
            cut["metrics"][metric], cut["interval"][metric] = cut["metrics"]["accuracy"], cut["interval"]["accuracy"]
    page, markdown = Page(to_html(parse(report))), to_markdown(parse(report))
    assert len(page.ids()) == len(set(page.ids()))
    assert ("Accuracy" if metric == "accuracy" else "Pearson") + " against depth" in page.text
    for row in depth_table(parse(report))[1]:
        assert " ".join(row) in page.text
        assert "| " + " | ".join(row) + " |" in markdown


def test_one_depth_has_a_table_and_no_picture(report: dict[str, Any]) -> None:
    plain = to_html(parse(report)).count("<svg")
    report["depths"] = [curve("distill", 0.2, [[1]])]
    page = to_html(parse(report))
    assert page.count("<svg") == plain
    assert "not trained again" in page
    report["depths"] = [curve("distill", 0.2, SPREAD)]
    assert to_html(parse(report)).count("<svg") == plain + 2  # for wide and narrow screens


def test_without_depths_there_is_no_word_of_them(report: dict[str, Any]) -> None:
    assert "against depth" not in to_html(parse(report)) + to_markdown(parse(report))


def test_what_is_missing_is_a_dash_and_nothing_that_is_said_is_trusted(report: dict[str, Any]) -> None:
    whole, short = curve("distill", 0.2, SPREAD), curve(HOSTILE, 0.0, SPREAD[:2], HOSTILE)
    del whole["cuts"][3]["metrics"], whole["cuts"][4]["interval"]
    report["depths"] = [whole, short]
    rows = {row[0]: row for row in depth_table(parse(report))[1]}
    assert rows["4"][1] == "–"
    assert rows["5"][1] == "78.0"
    assert rows["6"][3] == "–"
    assert rows["2"][3] != "–"
    page, markdown = to_html(parse(report)), to_markdown(parse(report))
    assert "<script" not in page.lower()
    assert HOSTILE not in page
    assert "<script" not in markdown.lower()
    Page(page)
