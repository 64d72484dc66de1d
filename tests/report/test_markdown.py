"""Markdown says what the JSON says, whatever the names are."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from compress.markdown import code, code_cell, text
from compress.report.card import to_model_card
from compress.report.document import parse
from compress.report.markdown import fenced, to_markdown


def rows(markdown: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table after a heading."""
    section = markdown.split(f"\n## {heading}\n", 1)[1]
    lines = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_table_agrees_with_the_json(report: dict[str, Any]) -> None:
    headings, _, *lines = rows(to_markdown(parse(report)), "Figures")
    entries = [*report["stages"], *report["artifacts"], *report["baselines"]]
    assert headings[3:] == ["Accuracy %", "Kept %", "MiB", "Params", "ms", "Speedup", "Agree %"]
    assert len(lines) == len(entries)
    for line, entry in zip(lines, entries, strict=True):
        assert entry["name"] in line[1].replace("\\", "")
        assert ("recommended" in line[1]) == (entry["name"] == report["recommended"])
        low, high = entry["interval"]["accuracy"]
        assert line[3] == f"{100 * entry['metrics']['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        assert line[4] == f"{100 * entry['retained']:.1f}"
        assert float(line[7].replace(",", "")) == pytest.approx(entry["latency"][0]["median_ms"], rel=0.005)
        assert float(line[8].rstrip("×")) == pytest.approx(entry["speedup"], rel=0.05)


def test_every_paired_comparison_stands_in_a_table_with_its_interval(report: dict[str, Any]) -> None:
    headings, _, *lines = rows(to_markdown(parse(report)), "Who is better, on the same rows")
    assert headings == ["Model", "Against", "Difference", "95 % interval", "p", "Says"]
    assert ["distill", "teacher", "−1.2", r"\[−2.2, −0.2]", "&lt; 0.001", "worse"] in lines
    assert ["distill", "labels_only", "+1.7", r"\[+0.7, +2.7]", "&lt; 0.001", "better"] in [
        [cell.replace("labels\\_only", "labels_only") for cell in line] for line in lines
    ]
    assert ["heads", "distill", "−0.2", r"\[−1.2, +0.8]", "0.250", "may be chance"] in lines
    entries = [*report["stages"], *report["artifacts"], *report["baselines"]]
    assert len(lines) == sum(len(entry.get("differences", {})) for entry in entries)
    by_step = {line[0]: line[4] for line in rows(to_markdown(parse(report)), "What each step did by itself")[2:]}
    assert by_step["heads"] == "−0.2 [−1.2, +0.8] (may be chance)"


def test_whether_to_ship_comes_first_and_is_said_once(report: dict[str, Any]) -> None:
    sentences = to_markdown(parse(report))
    assert sentences.startswith("# Ship with care: quickstart · example\n\n- **The teacher is weak.** Train it.\n")
    assert sentences.count("The teacher is weak") == 1
    assert "**Ship with care**\n\n- **The teacher is weak.** Train it." in to_model_card(parse(report))


def test_each_class_has_a_line_with_three_figures_of_each_model(report: dict[str, Any]) -> None:
    def found(recall: float) -> list[dict[str, Any]]:
        rates = {"precision": 0.5, "recall": recall, "f1": 0.25}
        return [
            {"label": "negative", "rows": 1200, "answered": 7, **rates},
            {"label": "never", "rows": 0, "answered": 0, **rates},
        ]

    report["stages"][0]["classes"], report["artifacts"][2]["classes"] = found(0.9), found(0.8)
    headings, _, first, never = rows(to_markdown(parse(report)), "By class")
    assert headings[:4] == ["Class", "Test rows", "teacher: Precision %", "teacher: Recall %"]
    assert first == ["negative", "1,200", "50.0", "90.0", "25.0", "50.0", "80.0", "25.0"]
    assert never == ["never", "0", *6 * ["–"]]
    assert "No test row has the class never" in to_markdown(parse(report))


def test_every_table_has_as_many_cells_in_each_row(report: dict[str, Any]) -> None:
    for entry in [*report["stages"], *report["artifacts"]]:
        entry["name"] += " | <b>`x`"
    report["settings"]["a|b"] = "c|d"
    report["machine"]["cpu"] = "x|y\nz"
    widths: list[set[int]] = [set()]
    for line in to_markdown(parse(report)).splitlines():
        if line.startswith("|"):
            widths[-1].add(len(re.findall(r"(?<!\\)\|", line)))
        elif widths[-1]:
            widths.append(set())
    assert all(len(width) == 1 for width in widths if width)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a|b", r"a\|b"),
        ("`x`", r"\`x\`"),
        ("*x* _y_ labels_only", r"\*x\* \_y\_ labels_only"),
        ("[x](y) ![z](w)", r"\[x\](y) ![z\](w)"),
        ("# no heading", r"\# no heading"),
        ("- no list", r"\- no list"),
        ("1. no list", r"1\. no list"),
        ("two\nlines", "two lines"),
        ("84.3 [82.8, 85.8]", "84.3 [82.8, 85.8]"),
        ("$x$", r"\$x\$"),
        ("-1 and 3.5", "-1 and 3.5"),
    ],
)
def test_text_is_shown_as_it_is(value: str, shown: str) -> None:
    assert text(value) == shown


def test_code_cannot_be_closed_from_within() -> None:
    assert code("a`b``c") == "```a`b``c```"
    assert code("`a`") == "`` `a` ``"
    assert code("a|b <script>*x*\nc") == "`a|b <script>*x* c`"
    assert code_cell("a|b") == r"`a\|b`"
    assert fenced("x\n```\ny").splitlines()[0] == "````"


def test_hostile_labels_and_names_stay_text_in_the_report_and_the_card(report: dict[str, Any]) -> None:
    hostile = "a|b <script>*x*\n- `y`: [z](w)"
    report["task"]["labels"] = [hostile, "plain"]
    report["dataset"] |= {"name": hostile, "notes": [hostile]}
    report["settings"]["teacher"] = {"model": hostile}
    report["recommended"] = report["artifacts"][1]["name"] = hostile
    shown = r"a\|b &lt;script&gt;\*x\* - \`y\`: [z\](w)"
    span = "``a|b <script>*x* - `y`: [z](w)``"
    markdown, card = to_markdown(parse(report)), to_model_card(parse(report))
    assert f"| labels | {shown}, plain |" in markdown
    assert f"| name | {shown} |" in markdown
    assert f"| teacher.model | {shown} |" in markdown
    assert f"It predicts: {span}, `plain`." in card
    for page in (markdown, card):
        assert shown in page
        assert "<script>" not in page.replace(span, "")
        assert "\n- `y`" not in page


def test_missing_figures_are_dashes(report: dict[str, Any]) -> None:
    report["artifacts"] = [{"name": "bare"}]
    *_, bare = [line for line in rows(to_markdown(parse(report)), "Figures") if line[1].startswith("bare")]
    assert bare[3:] == ["–"] * 7


def test_an_empty_report_gives_markdown() -> None:
    assert "No artifact is recommended" in to_markdown(parse({"schema": 2}))


def test_the_model_card_has_valid_front_matter_and_invents_nothing(report: dict[str, Any]) -> None:
    report["task"]["labels"] = ["---", "<b>", "a`b"]
    card = to_model_card(parse(report))
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["knowledge-distillation", "model-compression"],
        "metrics": ["accuracy", "macro_f1", "mcc"],
    }
    assert "AutoModelForSequenceClassification.from_pretrained(folder)" in body
    assert body.index("import compress") < body.index("from_pretrained")
    assert "<b>" not in body.replace("`<b>`", "")
    assert "84.4 [82.9, 85.9]" in body


def test_a_card_of_another_task_does_not_say_how_to_load_a_classifier(report: dict[str, Any]) -> None:
    report["task"] = {"kind": "tagging", "labels": ["B-PER"], "main_metric": "f1"}
    card = to_model_card(parse(report))
    assert "AutoModelForSequenceClassification" not in card
    assert "pipeline_tag" not in card
    assert to_model_card(parse({"schema": 2})).startswith("---\n")


def test_the_model_card_says_how_a_model_with_its_own_code_loads_without_the_package(report: dict[str, Any]) -> None:
    assert "trust_remote_code" not in to_model_card(parse(report))
    card = to_model_card(parse(report), "modeling_compress.py")
    assert "from_pretrained(folder, trust_remote_code=True)" in card
    assert "`modeling_compress.py`" in card
