"""The teacher's own int8 and noisy timings, in every form of a report."""

from __future__ import annotations

from typing import Any

import pytest

from compress.report.card import to_model_card
from compress.report.document import parse, plain
from compress.report.html import to_html
from compress.report.markdown import to_markdown
from compress.report.words import noise
from tests.report.conftest import artifact
from tests.report.test_table import printed


@pytest.fixture
def measured(report: dict[str, Any]) -> dict[str, Any]:
    """The example with the teacher's own int8, quiet timings, and one artifact whose timing is noisy."""
    own = artifact("teacher_int8", "onnxruntime", "int8", 22.4, 0.859, 6.2, agreement=0.99, difference=0.2)
    report["baselines"].append(own)
    for entry in report["stages"] + report["artifacts"] + report["baselines"]:
        entry["over_int8"] = 6.2 / entry["latency"][0]["median_ms"]
        for timing in entry["latency"]:
            timing["quiet_ms"] = 0.9 * timing["median_ms"]
    report["artifacts"][2]["latency"][0]["noise"] = "p90 is 4.0 times the median"
    return report


def test_noise_is_marked_beside_the_figure_and_told_with_what_to_do(measured: dict[str, Any]) -> None:
    count = sum(len(e["latency"]) for e in measured["stages"] + measured["artifacts"] + measured["baselines"])
    sentence = (
        f"1 of {count} timings is noisy (dynamic); of dynamic, for example, p90 is 4.0 times the median. "
        "Measure them again on an idle machine: compress bench RUN --again."
    )
    assert noise(parse(measured)) == [sentence]
    table = printed(measured, 80)
    assert "3.10*" in table
    assert " ".join(table.split()).count(sentence) == 1
    page = to_markdown(parse(measured)).replace("\\", "")
    assert "| 3.10 (2.79) noisy |" in page
    assert "answers 6.8× faster (2.0× faster than the teacher's own int8) (noisy timings)" in page
    assert sentence in page
    html = to_html(parse(measured))
    assert "<td>3.10 (2.79) noisy</td>" in html
    assert sentence in html
    kept = plain(parse(measured))["artifacts"][2]["latency"][0]
    assert (kept["noise"], kept["quiet_ms"]) == ("p90 is 4.0 times the median", pytest.approx(2.79))


def test_quiet_timings_are_not_marked(report: dict[str, Any]) -> None:
    assert noise(parse(report)) == []
    assert "noisy" not in to_html(parse(report)) + to_markdown(parse(report)) + printed(report)


def test_speed_is_quoted_against_the_teachers_own_int8_too(measured: dict[str, Any]) -> None:
    report = parse(measured)
    for text in (to_html(report), to_markdown(report), to_model_card(report), printed(measured, 80)):
        assert "vs int8" in text
        assert "2.0×" in text
    first = " ".join(printed(measured, 200).split())
    assert "answers 6.8× faster (2.0× faster than the teacher's own int8)" in first
    measured["artifacts"][2]["over_int8"] = 0.8
    assert "(0.80× as fast as the teacher's own int8)" in " ".join(printed(measured, 200).split())
    rows = [line for line in printed(measured, 80).splitlines() if "★ dynamic" in line]
    assert rows[0].split()[-3:] == ["6.8×", "0.80×", "98.9"]
