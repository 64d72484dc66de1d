from __future__ import annotations

from typing import Any

import numpy as np

from compress.data.rows import Columns
from compress.data.summary import Summary
from compress.report.document import parse
from compress.report.html import to_html
from compress.report.markdown import to_markdown
from compress.report.words import reading

SUMMARY = Summary(
    columns={"train.csv": Columns("header in line 1", "text", None, "label", ignored=("id", "date"))},
    rows={"training": 60},
    classes={"<good>": {"training": 59}, "odd": {"training": 1}},
    once=("odd",),
).with_cuts({"training": np.array([8] * 40)}, 6)


def test_the_report_says_how_the_rows_were_read(report: dict[str, Any]) -> None:
    report["dataset"]["summary"] = SUMMARY.plain()
    markdown, page = to_markdown(parse(report)), to_html(parse(report))
    for text in (
        "not used: 'id', 'date'",
        "'odd' 1/0/0",
        "40 of 40 training rows that were looked at (25.0% of the tokens)",
    ):
        assert text in markdown
        assert text.replace("'", "&#39;") in page
    assert "&lt;good&gt;" in page


def test_a_report_of_an_earlier_version_has_no_such_block(report: dict[str, Any]) -> None:
    report["dataset"].pop("summary", None)
    assert reading(parse(report)) == []
