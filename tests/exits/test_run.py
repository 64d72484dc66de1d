"""Early exits through a whole run: a pruned student, its forms in the report, and their answers to people's texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.distill.losses import SoftTargets
from compress.distill.stage import Distill
from compress.exits.stage import EntropyExit, PatienceExit
from compress.pipeline.plan import Plan
from compress.run.check import check
from compress.run.plan import plan_of
from compress.run.predict import predict
from compress.student.bert import Bert
from tests.conftest import save_tiny, write_files
from tests.run.test_recipe import recipe, report

SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2}


@pytest.mark.slow
def test_exits_are_artifacts_as_all_others(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "student": Bert(layers=3),
        "distill": Distill(losses={"soft": SoftTargets()}, epochs=1, batch_size=16),
        "quantize": {},
        "exit": {"soon": PatienceExit(**SHORT, patience=1), "sure": EntropyExit(**SHORT, max_drop=20)},
    }
    asked = recipe(write_files(tmp_path), save_tiny(tmp_path / "teacher"), tmp_path, **changes)
    plan: Plan = plan_of(asked, check(asked))
    trainings = [step.training for step in plan.steps if step.training is not None]
    assert [training.steps for training in trainings if training.title == "exit heads"] == [20], "rules share heads"
    run = asked.run()
    found = {artifact["name"]: artifact for artifact in report(tmp_path)["artifacts"]}
    forms = [f"{name}-{form}" for name in ("soon", "sure") for form in ("pytorch", "onnx", "int8")]
    assert set(found) == {"student", "onnx", *forms}
    for name in forms:
        exits = found[name]["details"]["exits"]
        assert exits["layers"] == 3
        assert sum(exits["rows_by_layer"]) == 60
        rows = sum(layer * count for layer, count in enumerate(exits["rows_by_layer"], start=1))
        assert exits["average_layers"] == pytest.approx(rows / 60)
        assert found[name]["latency"]
        assert predict(run.folder / found[name]["path"], ["a good film"])[0]["label"] in ("bad", "good")
    layers = {part["part"] for part in found["soon-int8"]["int8_parts"] if part.get("int8")}
    assert layers >= {f"layer {layer} ffn" for layer in (1, 2, 3)}, "branches are counted"
    assert found["soon-onnx"]["trained"]["agreement"] >= 0.99
    assert found["soon-onnx"]["metrics"] == found["soon-pytorch"]["metrics"]
    assert [point["threshold"] for point in found["soon-onnx"]["details"]["exits"]["tried"]] == [1.0]
