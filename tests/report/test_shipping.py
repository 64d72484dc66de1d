"""Whether a report says to ship: every rule, on either side of its border."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from compress.report import shipping as rules
from compress.report.document import parse
from compress.report.schema import Shipping
from compress.report.shipping import shipping


def difference(value: float, *, clear: bool | None = None, half: float = 0.01) -> dict[str, Any]:
    """Return a paired difference of accuracy; clear where its interval does not hold 0, unless that is said."""
    clear = abs(value) > half if clear is None else clear
    return {
        "metric": "accuracy", "value": value, "low": value - half, "high": value + half, "p": 0.01 if clear else 0.3,
    }  # fmt: skip


def report_of(**parts: Any) -> dict[str, Any]:
    """Return a report against which nothing speaks."""
    onnx = {
        "name": "onnx", "metrics": {"accuracy": 0.9}, "speedup": 5.0,
        "differences": {"teacher": difference(-0.01), "student": difference(0.0)},
        "classes": [of_class("good", 1000, 0.9), of_class("bad", 1000, 0.9)],
    }  # fmt: skip
    return {
        "schema": 2, "task": {"main_metric": "accuracy"}, "dataset": {"rows": {"test": 2000}}, "recommended": "onnx",
        "stages": [
            {"name": "teacher", "role": "teacher", "metrics": {"accuracy": 0.91}},
            {"name": "distill", "metrics": {"accuracy": 0.9}, "differences": {"teacher": difference(-0.01)}},
        ],
        "artifacts": [onnx],
        "baselines": [
            cheap("constant", "always answering 'good'", 0.5, onnx=-0.4),
            cheap("tfidf", "TF-IDF", 0.8, onnx=-0.1, teacher=-0.11),
        ],
    } | parts  # fmt: skip


def cheap(name: str, kind: str, accuracy: float, **less: float) -> dict[str, Any]:
    """Return a baseline, and by how much it is better than others."""
    found = {other: difference(value) for other, value in less.items()}
    return {"name": name, "kind": kind, "metrics": {"accuracy": accuracy}, "differences": found}


def of_class(label: str, rows: int, recall: float) -> dict[str, Any]:
    """Return how well a class is found."""
    return {"label": label, "rows": rows, "answered": rows, "precision": 0.9, "recall": recall, "f1": 0.9}


def judged(**parts: Any) -> Shipping:
    return shipping(parse(report_of(**parts)))


def with_artifact(**parts: Any) -> Shipping:
    report = report_of()
    report["artifacts"][0] |= parts
    return shipping(parse(report))


def found(shipping: Shipping) -> list[tuple[str, str]]:
    return [(reason.rule, reason.decision) for reason in shipping.reasons]


def test_without_a_reason_against_it_it_is_shipped_and_says_why() -> None:
    shipped = judged()
    assert (shipped.decision, found(shipped)) == ("ship", [("passed", "ship")])
    assert shipped.reasons[0].detail.startswith("Against TF-IDF: accuracy +10.0 points")
    assert "Against the teacher: accuracy −1.0 points" in shipped.reasons[0].detail


def test_nothing_recommended_is_not_shipped() -> None:
    assert found(judged(recommended=None, artifacts=[])) == [("nothing", "do not ship")]


@pytest.mark.parametrize(
    ("constant", "less", "rule"),
    [
        (0.5, difference(-0.4), []),
        (0.89, difference(-0.01, clear=False), [("constant", "do not ship")]),
        (0.889, difference(-0.011), [("constant", "do not ship")]),  # 0.0999 of the way
        (0.8888, difference(-0.0112), []),  # 0.1007 of the way
        (0.95, difference(0.05), [("constant", "do not ship")]),
    ],
)
def test_what_hardly_beats_one_answer_for_all_is_not_shipped(
    constant: float, less: dict[str, Any], rule: list[tuple[str, str]]
) -> None:
    report = report_of(task={"main_metric": "macro_f1"})
    report["baselines"][0] |= {"metrics": {"macro_f1": constant}, "differences": {"onnx": less}}
    report["artifacts"][0]["metrics"] = {"macro_f1": 0.9}
    shipped = shipping(parse(report))
    assert [pair for pair in found(shipped) if pair[0] == "constant"] == rule


@pytest.mark.parametrize(
    ("less", "decision", "message"),
    [
        (difference(-0.1), "ship", ""),
        (difference(-0.1, clear=False), "ship with care", "onnx is not clearly better than TF-IDF"),
        (difference(0.1), "do not ship", "onnx is worse than TF-IDF"),
    ],
)
def test_tfidf_must_be_beaten(less: dict[str, Any], decision: str, message: str) -> None:
    report = report_of()
    report["baselines"][1]["differences"]["onnx"] = less
    shipped = shipping(parse(report))
    assert shipped.decision == decision
    assert shipped.reasons[0].text.startswith(message)


@pytest.mark.parametrize(
    ("less", "decision", "message"),
    [
        (difference(-0.1), "ship", ""),
        (difference(-0.1, clear=False), "ship with care", "The teacher is not clearly better than TF-IDF."),
        (difference(0.1), "do not ship", "The teacher is worse than TF-IDF"),
    ],
)
def test_a_teacher_must_beat_tfidf(less: dict[str, Any], decision: str, message: str) -> None:
    report = report_of()
    report["baselines"][1]["differences"]["teacher"] = less
    shipped = shipping(parse(report))
    assert shipped.decision == decision
    assert shipped.reasons[0].text.startswith(message)
    assert ("Train it longer" in shipped.reasons[0].detail) == bool(message)


def test_test_rows_without_labels_are_a_warning() -> None:
    for answered, decision in ((["training"], "ship"), (["training", "test"], "ship with care")):
        assert judged(dataset={"rows": {"test": 2000}, "answered": answered}).decision == decision


def test_a_student_clearly_better_than_its_teacher_is_a_warning_of_the_teacher() -> None:
    report = report_of()
    report["stages"][1]["differences"]["teacher"] = difference(0.05)
    assert found(shipping(parse(report))) == [("undertrained_teacher", "ship with care")]
    report["stages"][1]["differences"]["teacher"] = difference(0.05, clear=False)
    assert shipping(parse(report)).decision == "ship"


@pytest.mark.parametrize(
    ("value", "half", "rule"),
    [
        (-0.019, 0.01, []),
        (-rules.SOME_LOSS, 0.01, [("loss", "ship with care")]),
        (-rules.LARGE_LOSS, 0.01, [("loss", "do not ship")]),
        (-0.03, 0.04, [("few_rows", "ship with care")]),  # not clear, and -0.07 is not ruled out
        (0.0, 0.049, []),
        (0.0, rules.LARGE_LOSS, [("few_rows", "ship with care")]),
        (-0.06, 0.07, [("few_rows", "ship with care")]),
    ],
)
def test_a_loss_against_the_teacher_is_weighed_by_the_paired_test(
    value: float, half: float, rule: list[tuple[str, str]]
) -> None:
    shipped = with_artifact(differences={"teacher": difference(value, half=half)})
    assert [pair for pair in found(shipped) if pair[0] != "passed"] == rule


def test_a_loss_against_the_student_on_test_rows_is_told() -> None:
    lost = with_artifact(differences={"teacher": difference(-0.01), "student": difference(-0.011)})
    assert found(lost) == [("artifact_loss", "ship with care")]


@pytest.mark.parametrize(("rows", "decision"), [(99, "ship with care"), (100, "ship")])
def test_few_rows_tell_little(rows: int, decision: str) -> None:
    assert judged(dataset={"rows": {"test": rows}}).decision == decision


@pytest.mark.parametrize(
    ("share", "metric", "decision"),
    [(0.8, "accuracy", "ship with care"), (0.79, "accuracy", "ship"), (0.8, "mcc", "ship")],
)
def test_accuracy_that_one_answer_reaches_says_little(share: float, metric: str, decision: str) -> None:
    report = report_of(task={"main_metric": metric})
    report["artifacts"][0]["metrics"] = {metric: 0.95}
    report["baselines"][0]["metrics"] = {"accuracy": share, "mcc": 0.0}
    assert shipping(parse(report)).decision == decision


@pytest.mark.parametrize(
    ("rows", "recall", "decision"), [(5, 0.0, "ship with care"), (4, 0.0, "ship"), (5, 0.2, "ship")]
)
def test_a_class_that_is_never_found_is_named(rows: int, recall: float, decision: str) -> None:
    shipped = with_artifact(classes=[of_class("good", 1995, 0.9), of_class("bad", rows, recall)])
    assert shipped.decision == decision
    assert (f"never finds bad ({rows} rows)" in shipped.reasons[0].text) == (decision != "ship")


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (None, "Give more rows of them, or more weight: task.class_weights=balanced."),
        ("balanced", "Give more rows of them."),
    ],
)
def test_weights_that_classes_have_already_are_not_advised(given: str | None, remedy: str) -> None:
    report = report_of()
    report["settings"] = {"task": {"class_weights": given}}
    report["artifacts"][0]["classes"] = [of_class("good", 1995, 0.9), of_class("bad", 5, 0.0)]
    assert shipping(parse(report)).reasons[0].detail == remedy


@pytest.mark.parametrize(("speedup", "decision"), [(1.0, "ship with care"), (1.01, "ship"), (None, "ship")])
def test_what_is_not_faster_is_called_so(speedup: float | None, decision: str) -> None:
    assert with_artifact(speedup=speedup).decision == decision


def test_what_forbids_comes_before_what_warns() -> None:
    report = report_of(dataset={"rows": {"test": 50}})
    report["artifacts"][0]["differences"]["teacher"] = difference(-0.2)
    shipped = shipping(parse(report))
    assert shipped.decision == "do not ship"
    assert [reason.decision for reason in shipped.reasons] == ["do not ship", "ship with care"]


def test_a_given_model_without_a_teacher_is_judged_against_itself() -> None:
    report = report_of(stages=[{"name": "student", "role": "student", "metrics": {"accuracy": 0.9}}])
    report["artifacts"][0]["differences"] = {"student": difference(-0.06)}
    assert found(shipping(parse(report))) == [("loss", "do not ship")]


def test_every_rule_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/report.md").read_text(encoding="utf-8")
    names = set(re.findall(r'rule="(\w+)"', Path(rules.__file__).read_text(encoding="utf-8")))
    assert len(names) == 17
    assert all(f"`{name}`" in page for name in names)
