"""What a report concludes: which artifact to ship, and what it warns of."""

from __future__ import annotations

from typing import Any

from compress.verdict import recommend, verdicts


def artifact(name: str, precision: str, accuracy: float, speedup: float, **more: Any) -> dict[str, Any]:
    counted = {"int8_matmuls": [18, 18] if precision.startswith("int") else None}
    return {
        "name": name,
        "precision": precision,
        "metrics": {"accuracy": accuracy},
        "speedup": speedup,
        **counted,
        **more,
    }


def stage(name: str, kind: str, accuracy: float, speedup: float) -> dict[str, Any]:
    return {"name": name, "kind": kind, "metrics": {"accuracy": accuracy}, "speedup": speedup}


def concluded(*artifacts: dict[str, Any], student: float = 0.8) -> tuple[str | None, list[str]]:
    report: dict[str, Any] = {
        "task": {"main_metric": "accuracy"}, "dataset": {"rows": {"test": 100}}, "baselines": [],
        "stages": [stage("given", "Saved", student, 1.0)], "artifacts": list(artifacts),
    }  # fmt: skip
    report["recommended"] = recommend(report)
    return report["recommended"], verdicts(report)


ONNX = artifact("onnx", "fp32", 0.8, 3.0)


def test_the_fastest_of_those_that_keep_the_metric_is_recommended_and_nothing_warned_of() -> None:
    slower = artifact("static", "int8", 0.79, 4.0)
    assert concluded(ONNX, artifact("dynamic", "int8", 0.795, 5.0), slower) == ("dynamic", [])


def test_int8_that_is_not_faster_is_warned_of_with_what_to_ship() -> None:
    chosen, said = concluded(ONNX, artifact("static", "int8", 0.8, 2.0))
    assert chosen == "onnx"
    assert said == ["static in int8 is not faster than onnx in fp32 on this device (2.00× against 3.00×): ship onnx."]


def test_the_fastest_in_floats_counts_whatever_it_is_called_and_in_fp16_too() -> None:
    _, said = concluded(
        artifact("student", "fp32", 0.8, 1.0), artifact("half", "fp16", 0.8, 4.0), artifact("dynamic", "int8", 0.8, 3.0)
    )
    assert said == ["dynamic in int8 is not faster than half in fp16 on this device (3.00× against 4.00×): ship half."]


def test_four_bits_and_weights_in_pytorch_are_held_to_the_same() -> None:
    _, said = concluded(
        ONNX, artifact("groups", "int4", 0.8, 2.5), artifact("bitsandbytes", "nf4", 0.8, 0.2, int8_matmuls=None)
    )
    assert [line.split(" is")[0] for line in said] == ["groups in int4", "bitsandbytes in nf4"]


def test_a_slow_artifact_is_recommended_for_its_answers_alone_and_the_report_says_why() -> None:
    chosen, said = concluded(ONNX, artifact("qat", "int8", 0.82, 2.0))
    assert chosen == "qat"
    assert said == [
        "qat in int8 is not faster than onnx in fp32 on this device (2.00× against 3.00×): "
        "recommended all the same, as onnx is more than 0.01 below the best accuracy."
    ]


def test_integers_that_do_not_run_and_answers_that_are_lost_are_said() -> None:
    _, said = concluded(ONNX, artifact("dynamic", "int8", 0.5, 4.0, int8_matmuls=[0, 18]))
    assert said == [
        "dynamic loses 0.300 of the student's accuracy (0.800).",
        "dynamic: no matrix product runs in int8 in ONNX Runtime's optimized graph.",
    ]


def test_a_graph_for_another_device_is_neither_judged_by_its_speed_here_nor_recommended() -> None:
    signed = artifact("symmetric", "int8", 0.8, 9.0, int8_matmuls=[0, 18], target="TensorRT")
    assert concluded(ONNX, signed) == ("onnx", [])
    assert concluded(signed)[0] is None


def test_what_was_not_measured_is_left_out() -> None:
    assert concluded(ONNX, {"name": "tensorrt", "not_measured": "no GPU"}) == ("onnx", [])


def test_a_twin_that_was_trained_for_fewer_steps_is_said_to_have_been() -> None:
    twin = {"name": "labels_only", "metrics": {"accuracy": 0.8}, "interval": {"accuracy": [0.7, 0.9]}}
    report: dict[str, Any] = {
        "task": {"main_metric": "accuracy"}, "dataset": {"rows": {"test": 100}}, "baselines": [twin], "artifacts": [],
        "recommended": None,
        "stages": [
            stage("teacher", "Teacher", 0.9, 1.0), stage("layers", "Layers", 0.5, 2.0),
            stage("distill", "Distill", 0.85, 2.0),
        ],
    }  # fmt: skip
    assert verdicts(report)[-1] == "That twin went without layers, and so was trained for fewer steps."
    del report["stages"][1]
    assert len(verdicts(report)) == 1


def test_a_pruning_that_buys_little_speed_by_itself_is_pointed_out() -> None:
    report: dict[str, Any] = {
        "task": {"main_metric": "accuracy"}, "dataset": {"rows": {"test": 100}}, "baselines": [], "artifacts": [],
        "recommended": None,
        "stages": [
            stage("teacher", "Teacher", 0.9, 1.0), stage("distill", "Distill", 0.88, 1.05),
            stage("heads", "PruneHeads", 0.87, 1.134), stage("neurons", "PruneNeurons", 0.86, 2.0),
        ],
    }  # fmt: skip
    assert verdicts(report) == ["heads alone made a row 1.08× as fast, and changed accuracy by -0.010."]
