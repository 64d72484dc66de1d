"""What a report concludes: which artifact to ship, and what it warns of."""

from __future__ import annotations

from typing import Any

import pytest

from compress.report.document import parse
from compress.report.verdict import conclude, verdicts


def artifact(name: str, precision: str, accuracy: float, speedup: float, **more: Any) -> dict[str, Any]:
    counted = {"int8_matmuls": [18, 18] if precision.startswith("int") else None}
    loss = more.pop("loss", 0.0)  # on validation rows
    validation = {"rows": 600, "difference": difference(-loss, clear=loss > 0.01)}
    return {
        "name": name,
        "precision": precision,
        "metrics": {"accuracy": accuracy},
        "speedup": speedup,
        "validation": validation,
        **counted,
        **more,
    }


def stage(name: str, role: str, accuracy: float, speedup: float, **differences: Any) -> dict[str, Any]:
    return {
        "name": name, "role": role, "metrics": {"accuracy": accuracy}, "speedup": speedup, "differences": differences,
    }  # fmt: skip


def difference(value: float, *, clear: bool) -> dict[str, Any]:
    """Return a paired difference of accuracy, 0.01 to either side."""
    return {
        "metric": "accuracy",
        "value": value,
        "low": value - 0.01,
        "high": value + 0.01,
        "p": 0.01 if clear else 0.3,
    }


def baseline(name: str, accuracy: float, **differences: Any) -> dict[str, Any]:
    return {"name": name, "kind": "TF-IDF", "metrics": {"accuracy": accuracy}, "differences": differences}


def report_of(stages: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    return {
        "schema": 2, "task": {"main_metric": "accuracy"}, "dataset": {"rows": {"test": 2000}}, "baselines": [],
        "artifacts": [], "recommended": None, "stages": stages,
    } | parts  # fmt: skip


def concluded(*artifacts: dict[str, Any], student: float = 0.8) -> tuple[str | None, list[str]]:
    report: dict[str, Any] = {
        "schema": 2, "task": {"main_metric": "accuracy"}, "dataset": {"rows": {"test": 100}}, "baselines": [],
        "stages": [stage("given", "student", student, 1.0)], "artifacts": list(artifacts),
    }  # fmt: skip
    finished = conclude(parse(report))
    return finished.recommended, finished.verdicts


ONNX = artifact("onnx", "fp32", 0.8, 3.0)


def test_the_fastest_that_validation_rows_do_not_show_to_be_worse_is_recommended() -> None:
    lossy = artifact("lossy", "int8", 0.9, 9.0, loss=0.011)
    assert concluded(ONNX, artifact("dynamic", "int8", 0.795, 5.0, loss=0.01), lossy) == ("dynamic", [])
    assert concluded(ONNX, lossy) == ("onnx", [])


def test_test_rows_have_no_say_in_what_is_recommended() -> None:
    lucky = artifact("lucky", "nf4", 0.99, 0.3)
    worse = artifact("dynamic", "int8", 0.6, 5.0, differences={"student": difference(-0.2, clear=True)})
    assert concluded(ONNX, lucky, worse)[0] == "dynamic"


def test_int8_that_is_not_faster_is_warned_of_with_what_to_ship() -> None:
    chosen, sentences = concluded(ONNX, artifact("static", "int8", 0.8, 2.0))
    assert chosen == "onnx"
    assert sentences == [
        "static in int8 is not faster than onnx in fp32 on this device (2.00× against 3.00×): ship onnx."
    ]


def test_the_fastest_in_floats_counts_whatever_it_is_called_and_in_fp16_too() -> None:
    _, sentences = concluded(
        artifact("student", "fp32", 0.8, 1.0), artifact("half", "fp16", 0.8, 4.0), artifact("dynamic", "int8", 0.8, 3.0)
    )
    assert sentences == [
        "dynamic in int8 is not faster than half in fp16 on this device (3.00× against 4.00×): ship half."
    ]


def test_four_bits_and_weights_in_pytorch_are_held_to_the_same() -> None:
    _, sentences = concluded(
        ONNX, artifact("groups", "int4", 0.8, 2.5), artifact("bitsandbytes", "nf4", 0.8, 0.2, int8_matmuls=None)
    )
    assert [line.split(" is")[0] for line in sentences] == ["groups in int4", "bitsandbytes in nf4"]


def test_a_slow_artifact_is_recommended_for_its_answers_alone_and_the_report_says_why() -> None:
    half = artifact("half", "fp16", 0.8, 3.0, loss=0.05)
    chosen, sentences = concluded(half, artifact("qat", "int8", 0.82, 2.0))
    assert chosen == "qat"
    assert sentences == [
        "qat in int8 is not faster than half in fp16 on this device (2.00× against 3.00×): "
        "recommended all the same: on validation rows half answers worse than the student."
    ]


def test_integers_that_do_not_run_and_answers_that_are_lost_are_said() -> None:
    lost = {"student": difference(-0.3, clear=True)}
    dynamic = artifact("dynamic", "int8", 0.5, 4.0, int8_matmuls=[0, 18], differences=lost, loss=0.3)
    _, sentences = concluded(ONNX, dynamic)
    assert sentences == [
        "dynamic loses: 50.0\N{NO-BREAK SPACE}% against 80.0\N{NO-BREAK SPACE}% of the student "
        "(accuracy −30.0 points, 95\N{NO-BREAK SPACE}% interval −31.0 to −29.0).",
        "dynamic: no matrix product runs in int8 in ONNX Runtime's optimized graph.",
    ]


def test_a_loss_that_may_be_chance_is_not_called_a_loss_and_a_small_clear_one_is() -> None:
    unclear = {"student": difference(-0.02, clear=False)}
    assert concluded(ONNX, artifact("dynamic", "int8", 0.78, 4.0, differences=unclear))[1] == []
    clear = {"student": difference(-0.005, clear=True)}
    _, sentences = concluded(ONNX, artifact("dynamic", "int8", 0.795, 4.0, differences=clear, loss=0.02))
    assert sentences[0].startswith("dynamic loses: ")


def test_a_graph_for_another_device_is_neither_judged_by_its_speed_here_nor_recommended() -> None:
    signed = artifact("symmetric", "int8", 0.8, 9.0, int8_matmuls=[0, 18], target="TensorRT")
    assert concluded(ONNX, signed) == ("onnx", [])
    assert concluded(signed)[0] is None


def test_what_was_not_measured_is_left_out() -> None:
    assert concluded(ONNX, {"name": "tensorrt", "not_measured": "no GPU"}) == ("onnx", [])


def test_a_twin_that_was_trained_for_fewer_steps_is_said_to_have_been() -> None:
    stages = [
        stage("teacher", "teacher", 0.9, 1.0), stage("layers", "preparation", 0.5, 2.0),
        stage("distill", "distillation", 0.85, 2.0, labels_only=difference(0.05, clear=True)),
    ]  # fmt: skip
    report = report_of(stages, baselines=[baseline("labels_only", 0.8)])
    assert verdicts(parse(report))[-1] == (
        "The student trained on labels alone went without layers, and so was trained for fewer steps."
    )
    del report["stages"][1]
    assert len(verdicts(parse(report))) == 1


@pytest.mark.parametrize(
    ("value", "clear", "message"),
    [
        (0.02, True, "Distillation helped: accuracy +2.0 points, 95\N{NO-BREAK SPACE}% interval +1.0 to +3.0, against"),
        (-0.02, True, "Distillation harmed: accuracy −2.0 points"),
        (0.02, False, "Distillation made no clear difference in this run: accuracy +2.0 points"),
    ],
)
def test_what_distillation_did_is_said_by_the_paired_test(value: float, clear: bool, message: str) -> None:
    stages = [
        stage("teacher", "teacher", 0.9, 1.0),
        stage("distill", "distillation", 0.85, 2.0, labels_only=difference(value, clear=clear)),
    ]
    assert verdicts(parse(report_of(stages)))[0].startswith(message)


def test_a_pruning_that_buys_little_speed_by_itself_is_pointed_out() -> None:
    report = report_of([
        stage("teacher", "teacher", 0.9, 1.0), stage("distill", "distillation", 0.88, 1.05),
        stage("heads", "pruning", 0.87, 1.134, distill=difference(-0.01, clear=False)),
        stage("neurons", "pruning", 0.86, 2.0, heads=difference(-0.01, clear=False)),
    ])  # fmt: skip
    assert verdicts(parse(report)) == [
        "heads alone made a row 1.08× as fast "
        "(accuracy −1.0 points, 95\N{NO-BREAK SPACE}% interval −2.0 to ±0, which may be chance)."
    ]


def against_own_int8(over_int8: float, **found: Any) -> tuple[list[str], list[str]]:
    """Return the reasons not to ship and the verdicts on the teacher's own int8, with ``found`` its difference."""
    best = artifact("dynamic", "int8", 0.82, 9.0, over_int8=over_int8)
    own = {
        "name": "teacher_int8", "path": "baselines/teacher_int8", "metrics": {"accuracy": 0.83},
        "differences": {"dynamic": difference(**found)},
    }  # fmt: skip
    finished = conclude(parse(report_of([stage("teacher", "teacher", 0.84, 1.0)], artifacts=[best], baselines=[own])))
    assert finished.recommended == "dynamic"
    assert finished.shipping is not None
    reasons = [
        f"{reason.decision}: {reason.detail}" for reason in finished.shipping.reasons if reason.rule == "teacher_int8"
    ]
    return reasons, [line.replace("\N{NO-BREAK SPACE}", " ") for line in finished.verdicts if "own int8" in line]


def test_a_student_that_is_slower_than_the_teachers_own_int8_and_no_better_must_not_be_shipped() -> None:
    reasons, sentences = against_own_int8(0.8, value=0.01, clear=False)
    assert [reason.replace("\N{NO-BREAK SPACE}", " ") for reason in reasons] == [
        "do not ship: dynamic is 0.80× as fast as it, and not more accurate (accuracy −1.0 points, 95 % interval "
        "−2.0 to ±0, which may be chance). Ship baselines/teacher_int8, or distil a smaller student."
    ]
    assert sentences == []
    assert against_own_int8(0.8, value=0.02, clear=True)[0]


def test_a_faster_or_a_better_student_is_set_beside_the_teachers_own_int8() -> None:
    assert against_own_int8(2.0, value=0.02, clear=True) == (
        [],
        ["dynamic is 2.00× as fast as the teacher's own int8, which took no training: "
         "accuracy −2.0 points, 95 % interval −3.0 to −1.0."],
    )  # fmt: skip
    assert against_own_int8(0.8, value=-0.02, clear=True)[1][0].startswith("dynamic is 0.80× as fast")
