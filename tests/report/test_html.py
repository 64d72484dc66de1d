"""The page is whole, quiet on the network, and shows what the data say as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import matplotlib
import pytest

from compress.report.document import parse
from compress.report.html import to_html

VOID = {"meta", "br", "link", "img", "hr", "input"}
HOSTILE = "<script>alert(1)</script>\"'&amp;$x$ {{ 7*7 }} </style></svg> | `"


class Page(HTMLParser):
    """Collect elements, ids and text; fail on elements that are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute of {tag} is given twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def ids(self) -> list[str]:
        return [value for _, attrs in self.elements for key, value in attrs.items() if key == "id" and value]


def spoiled(value: Any, key: str = "") -> Any:
    """Return ``value`` with every string that is not a name the page decides by replaced by a hostile one."""
    if isinstance(value, dict):
        return {item_key: spoiled(item, item_key) for item_key, item in value.items()}
    if isinstance(value, list):
        return [spoiled(item, key) for item in value]
    decides = key in {"main_metric", "tokens", "decision"} or value == "teacher"
    return HOSTILE if isinstance(value, str) and not decides else value


def test_the_page_is_well_formed_and_its_ids_are_unique(report: dict[str, Any]) -> None:
    page = Page(to_html(parse(report)))
    assert len(page.ids()) == len(set(page.ids())) > 100
    known = set(page.ids())
    for _, attrs in page.elements:
        for value in filter(None, attrs.values()):
            assert set(re.findall(r"url\(#([^)]+)\)", value)) <= known
        if (attrs.get("href") or "").startswith("#"):
            assert (attrs["href"] or "")[1:] in known


def test_the_page_loads_nothing(report: dict[str, Any]) -> None:
    text = to_html(parse(report))
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image"}
    for tag, attrs in page.elements:
        assert "src" not in attrs
        assert tag == "a" or (attrs.get("href") or "#").startswith("#")
    assert "http" not in text.replace("http-equiv", "")
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_the_verdict_comes_first_and_says_what_it_is_measured_on(report: dict[str, Any]) -> None:
    text = Page(to_html(parse(report))).text
    verdict = (
        "The recommended artifact dynamic keeps 97.9 % of the teacher's accuracy (84.3 % [82.8, 85.8], 2,163 test "
        "rows), answers 6.8× faster, and is 4.9× smaller."
    )
    assert verdict in text
    assert text.index(verdict) < text.index("All models")
    assert "3.10 ms against 21.2 ms; median, one row at its real length, cpu, 1 thread" in text
    for line in report["verdicts"]:
        assert line in text
    assert "12 of 19" in text
    assert report["command"] in text
    assert "prune.neurons.ratio=0.58" in text


def test_hostile_text_stays_text(report: dict[str, Any]) -> None:
    hostile = spoiled(report)
    hostile["settings"] = {HOSTILE: {HOSTILE: [HOSTILE]}}
    hostile["machine"][HOSTILE] = hostile["versions"][HOSTILE] = HOSTILE
    hostile["dataset"]["rows"][HOSTILE] = 1
    for entry in hostile["stages"]:
        entry["metrics"][HOSTILE] = 0.5
        for row in entry["curves"]:
            row[HOSTILE] = 1.0
        for layer in entry["layers"]:
            layer[HOSTILE] = 3
    text = to_html(parse(hostile))
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.elements}
    assert text.count("</style>") == 1
    assert "7*7" in page.text
    assert " ".join(HOSTILE.split()) in page.text


def test_an_empty_report_gives_a_page() -> None:
    text = Page(to_html(parse({"schema": 2}))).text
    assert "No artifact is recommended." in text
    assert "The command was not recorded." in text


@pytest.mark.parametrize("turn", range(3))
def test_any_field_of_a_model_may_be_missing(report: dict[str, Any], turn: int) -> None:
    for group in ("stages", "artifacts", "baselines"):
        report[group] = [
            {key: value for field, (key, value) in enumerate(entry.items()) if (field + number) % 3 != turn}
            for number, entry in enumerate(report[group])
        ]
    Page(to_html(parse(report)))


def test_models_without_any_figure_are_shown(report: dict[str, Any]) -> None:
    text = Page(to_html(parse(report | {group: [{"name": f"bare {group}"}] for group in ("stages", "artifacts")}))).text
    assert "bare stages" in text
    assert "bare artifacts" in text


def test_a_regression_is_told_without_percent(report: dict[str, Any]) -> None:
    report["task"] = {"kind": "regression", "labels": [], "main_metric": "pearson"}
    for entry in [*report["stages"], *report["artifacts"], *report["baselines"]]:
        entry["metrics"] = {"pearson": entry["metrics"]["accuracy"], "mse": 0.4}
        entry["interval"] = {"pearson": entry["interval"]["accuracy"]}
    text = Page(to_html(parse(report))).text
    assert "keeps 97.9 % of the teacher's Pearson (0.843 [0.828, 0.858], 2,163 test rows)" in text


def test_a_slower_and_larger_artifact_is_called_so(report: dict[str, Any]) -> None:
    report["artifacts"][2] |= {"speedup": 0.5, "size_mib": 2 * 86.7}
    text = Page(to_html(parse(report))).text
    assert "answers 0.50× as fast, so more slowly, and is 2.0× larger" in text


def test_the_same_report_gives_the_same_bytes_and_leaves_matplotlib_alone(report: dict[str, Any]) -> None:
    before = dict(matplotlib.rcParams)
    assert to_html(parse(report)) == to_html(parse(report))
    assert dict(matplotlib.rcParams) == before


def test_many_stages_and_artifacts_of_unknown_kinds(report: dict[str, Any]) -> None:
    report["artifacts"] += [
        report["artifacts"][2] | {"name": f"tensorrt-{number}", "runtime": "tensorrt", "precision": "fp16"}
        for number in range(12)
    ]
    report["stages"] += [report["stages"][3] | {"name": "a stage with a very long name, number four " * 3}]
    Page(to_html(parse(report)))


def test_whether_to_ship_comes_first_and_every_comparison_is_shown(report: dict[str, Any]) -> None:
    page = Page(to_html(parse(report))).text
    body = page[page.rindex("}") :]
    assert body.index("Ship with care The teacher is weak. Train it.") < body.index("quickstart · example")
    assert page.count("The teacher is weak") == 1
    assert "heads distill −0.2 [−1.2, +0.8] 0.250 may be chance" in page
