"""What augmentation added stands in the report, as text."""

from __future__ import annotations

from typing import Any

import pytest

from compress.errors import CompressError
from compress.report.document import parse
from compress.report.html import to_html
from compress.report.markdown import to_markdown
from tests.report.test_html import HOSTILE, Page
from tests.report.test_markdown import rows


@pytest.fixture
def augmented(report: dict[str, Any]) -> dict[str, Any]:
    """A report with one augmentation."""
    examples = [{"original": [f"row {n}", "b"], "augmented": [f"[MASK] {n}", "b"]} for n in range(20)]
    counts = {"copies": 16000, "kept": 12345, "duplicates": 3650, "measured": 5, "words": 90000, "masked": 8987}
    made = {"kind": "Perturb", "settings": {"kind": "Perturb", "copies": 4, "mask_rate": 0.1, "rows": None}}
    return report | {"augmentation": [made | {"counts": counts, "examples": examples, "seconds": 12.0, "reused": True}]}


def test_rates_counts_and_examples_are_shown(augmented: dict[str, Any]) -> None:
    page, markdown = Page(to_html(parse(augmented))), to_markdown(parse(augmented))
    sentence = (
        "12,345 rows of 16,000 copies of training rows were added; only the teacher labels them. Of the others 3,650 "
        "copies were equal to another row and were dropped, 5 were equal to a validation or test row and were dropped."
    )
    for text in (page.text, markdown):
        assert sentence in text
        assert "in an earlier run" in text
    assert "mask_rate 0.1" in page.text
    assert "masked 8,987" in page.text
    assert "20 examples" in page.text
    assert "row 19 | b [MASK] 19 | b" in page.text
    folded = [index for index, (tag, _) in enumerate(page.elements) if tag == "details"]
    assert any(page.elements[index + 1][0] == "summary" for index in folded)
    lines = rows(markdown, "Augmentation: Perturb")
    assert ["masked", "8,987"] in lines
    assert r"row 19 \| b" in markdown


def test_hostile_texts_stay_texts(augmented: dict[str, Any]) -> None:
    made = augmented["augmentation"][0]
    made["kind"] = HOSTILE
    made["examples"] = [{"original": [HOSTILE], "augmented": [HOSTILE, HOSTILE]}] * 20
    made["settings"] = {HOSTILE: HOSTILE}
    made["counts"] = {HOSTILE: 3}
    page = to_html(parse(augmented))
    assert "script" not in {tag for tag, _ in Page(page).elements}
    assert page.count("</style>") == 1
    assert Page(page).text.count("7*7") >= 60
    markdown = to_markdown(parse(augmented))
    assert "<script>" not in markdown


def test_a_report_without_the_section_has_no_section(report: dict[str, Any]) -> None:
    assert parse(report).augmentation == []
    assert "Augmentation" not in to_html(parse(report))
    assert "Augmentation" not in to_markdown(parse(report))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "'augmentation': expected array, got object"),
        (["words"], "'augmentation.0.': expected object, got str"),
        ([{"examples": ["text"]}], "examples.0.': expected object, got str"),
        ([{"examples": [{"original": "text"}]}], "original': expected array, got str"),
        ([{"counts": [1]}], "counts': expected object, got array"),
    ],
)
def test_a_section_of_another_shape_is_refused(report: dict[str, Any], section: Any, message: str) -> None:
    with pytest.raises(CompressError, match=message):
        parse(report | {"augmentation": section})


def test_any_part_of_a_section_may_be_missing(augmented: dict[str, Any]) -> None:
    made = augmented["augmentation"][0]
    for key in list(made):
        part = {name: made[name] for name in made if name != key}
        assert "Augmentation" in Page(to_html(parse({"schema": 2, "augmentation": [part]}))).text
        assert "Augmentation" in to_markdown(parse({"schema": 2, "augmentation": [part]}))
    assert "Augmentation" in Page(to_html(parse({"schema": 2, "augmentation": [{"kind": "Perturb"}]}))).text
