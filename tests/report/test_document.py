"""report.json is read back whole or refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from compress.errors import CompressError
from compress.report import load_report, write_report
from compress.report.document import clean, json_schema, parse


def test_a_written_report_is_read_back_equal(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(parse(report), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    assert load_report(tmp_path) == parse(report)
    assert load_report(tmp_path / "report.json") == parse(report)


def test_the_file_holds_what_was_recorded_and_nothing_else(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(parse(report), tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["stages"][1]["metrics"] == report["stages"][1]["metrics"]
    assert "not_measured" not in document["artifacts"][0]
    assert parse(document) == parse(report)


def test_the_published_schema_is_that_of_the_records_and_holds_for_a_report(
    report: dict[str, Any], tmp_path: Path
) -> None:
    published = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())
    assert published == json_schema(), "write it anew: python -m compress.report > docs/report.schema.json"
    write_report(parse(report), tmp_path)
    jsonschema.validate(json.loads((tmp_path / "report.json").read_text()), published)
    with pytest.raises(jsonschema.ValidationError, match="'many' is not of type 'integer'"):
        jsonschema.validate({"schema": 2, "dataset": {"rows": {"test": "many"}}}, published)


def test_a_key_that_this_version_does_not_know_is_ignored(report: dict[str, Any]) -> None:
    assert parse(report | {"of_tomorrow": {"more": 1}}) == parse(report)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"report\.json does not exist"):
        load_report(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "no key 'schema'"),
        ("{}", "no key 'schema'"),
        ('{"schema": 1}', "schema 1, this version of compress reads schema 2"),
        ('{"schema": 2, "stages": {}}', "'stages': expected array, got object"),
        ('{"schema": 2, "stages": ["teacher"]}', "'stages\\[0\\]': expected object, got str"),
        ('{"schema": 2, "task": "classification"}', "'task': expected object, got str"),
    ],
)
def test_an_unusable_report_is_refused_with_its_path(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(CompressError, match=message) as caught:
        load_report(path)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(CompressError, match="cannot be read"):
        load_report(tmp_path)


def test_what_json_cannot_hold_is_left_out_or_becomes_a_replacement_character(tmp_path: Path) -> None:
    report = {"schema": 2, "name": "a\x1b[31m\ud800b", "seconds": float("nan"), "stages": (), "seed": 7}
    assert clean(report) == {"schema": 2, "name": "a\ufffd[31m\ufffdb", "stages": [], "seed": 7}
    write_report(parse(report), tmp_path)
    assert "seconds" not in json.loads((tmp_path / "report.json").read_text())


def test_joiners_of_other_scripts_survive() -> None:
    assert clean("می‌روم 👩‍💻") == "می‌روم 👩‍💻"


def test_the_headline_is_one_real_row_without_tokenization_where_the_teacher_ran(report: dict[str, Any]) -> None:
    gpu = report["artifacts"][2]["latency"][0] | {"device": "cuda", "threads": None, "median_ms": 0.9}
    report["artifacts"][2]["latency"].insert(0, gpu)
    parsed = parse(report)
    best = parsed.best
    assert best is not None
    assert parsed.place == ("cpu", 1)
    assert parsed.milliseconds(best) == pytest.approx(3.1)
    assert best.headline() is best.latency[0]


def test_the_student_is_the_artifact_of_that_name_or_the_last_trained_stage(report: dict[str, Any]) -> None:
    student = parse(report).student
    assert student is not None
    assert student.group == "artifact"
    del report["artifacts"][0]
    student = parse(report).student
    assert student is not None
    assert (student.group, student.name) == ("stage", "neurons")
    report["stages"], report["artifacts"] = report["stages"][:1], []
    assert parse(report).student is None
