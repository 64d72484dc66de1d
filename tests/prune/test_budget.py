"""Pruning to a budget through the whole chain: what is refused, chosen, predicted and measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig

from compress.benchmark.stage import Benchmark
from compress.errors import RecipeError
from compress.families.registry import FAMILIES
from compress.known import Known
from compress.prune.budget import Budget
from compress.prune.gradual import Curve
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from tests.conftest import BERT_NOW, CUT_EVERYWHERE_NOW, save_tiny, write_files
from tests.run.test_recipe import made, recipe


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the teacher that all tests share is trained and its student distilled."""
    folder = tmp_path_factory.mktemp("distilled")
    files = write_files(folder)
    small(files, save_tiny(folder / "teacher"), folder).run()
    return folder / "cache"


@pytest.fixture
def files(distilled: Path, tmp_path: Path) -> dict[str, Path]:
    """Files of made-up reviews beside a cache in which distillation is done."""
    shutil.copytree(distilled, tmp_path / "cache")
    return write_files(tmp_path)


def budget(**settings: Any) -> Budget:
    """Return a budget of seconds."""
    return replace(Budget(rows=24, widths=4, tries=4, recovery_epochs=0.5), **settings)


def small(files: dict[str, Path], teacher: Path, folder: Path, **prune: Budget) -> Recipe:
    """Return a recipe that prunes a student of three layers and does little else."""
    bench = Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, tfidf=False, labels_only=False, teacher_int8=False)
    return recipe(files, teacher, folder, student=Bert(layers=3), prune=prune, quantize={}, export={}, benchmark=bench)


def stage_of(folder: Path, name: str) -> dict[str, Any]:
    """Return a stage's record in report.json."""
    report = json.loads((folder / "run" / "report.json").read_text())
    return next(stage for stage in report["stages"] if stage["name"] == name)


@pytest.mark.parametrize("family", BERT_NOW)
def test_a_count_is_kept_exactly_with_every_family(family: str, tmp_path: Path, files: dict[str, Path]) -> None:
    save_tiny(tmp_path / "teacher", family)
    chain = small(files, tmp_path / "teacher", tmp_path, count=budget(parameters=5_000, rounds=2, schedule=Curve.cubic))
    chain.run()
    stage, before = stage_of(tmp_path, "count"), stage_of(tmp_path, "distill")
    assert (
        stage["parameters"]
        == stage["details"]["predicted_parameters"]
        == stage["details"]["measured_parameters"]
        <= 5_000
    )
    assert stage["parameters"] < before["parameters"]
    assert all(layer["heads"] >= 1 and layer["neurons"] >= 1 for layer in stage["layers"])
    assert len({point["step"] for point in stage["curves"]}) > 0  # it was recovered
    done = made(tmp_path)
    chain.run()
    assert made(tmp_path) == done
    assert stage_of(tmp_path, "count")["reused"]


@pytest.mark.parametrize("family", CUT_EVERYWHERE_NOW)
def test_a_speed_is_predicted_and_measured_with_every_family(
    family: str, tmp_path: Path, files: dict[str, Path]
) -> None:
    save_tiny(tmp_path / "teacher", family)
    chain = small(files, tmp_path / "teacher", tmp_path, speed=budget(speedup=1.1))
    chain.run()
    stage = stage_of(tmp_path, "speed")
    assert stage["details"]["predicted_speedup"] >= 1.1
    assert stage["details"]["measured_speedup"] > 0
    assert stage["details"]["predicted_latency_ms"] > 0
    assert stage["details"]["costs"]["unit"] == "ms"
    assert stage["parameters"] < stage_of(tmp_path, "distill")["parameters"]
    told = " ".join(stage["notes"])
    wanted = ("tokens: ", "table, ms: ", "round 1 of 1, heads × units: ", "predicted", "measured (ONNX Runtime fp32")
    for item in wanted:
        assert item in told
    assert "× predicted" in (tmp_path / "run" / "report.md").read_text()
    done = made(tmp_path)
    chain.run()
    assert made(tmp_path) == done  # the table too: it would choose another shape
    assert stage_of(tmp_path, "speed")["details"]["measured_speedup"] == stage["details"]["measured_speedup"]


@pytest.mark.slow
def test_a_latency_between_the_least_and_what_it_takes_is_kept_by_the_table(
    tmp_path: Path, files: dict[str, Path], teacher_folder: Path
) -> None:
    first = small(files, teacher_folder, tmp_path, speed=budget(speedup=1.01, recovery_epochs=0))
    first.run()
    costs = stage_of(tmp_path, "speed")["details"]["costs"]
    whole = (
        stage_of(tmp_path, "speed")["details"]["predicted_latency_ms"]
        * stage_of(tmp_path, "speed")["details"]["predicted_speedup"]
    )
    goal = (costs["rest"] + costs["layer"] + whole) / 2
    other = small(files, teacher_folder, tmp_path, latency=budget(latency_ms=goal, recovery_epochs=0))
    replace(other, output=str(tmp_path / "other" / "run")).run()
    stage = stage_of(tmp_path / "other", "latency")
    assert costs["rest"] + costs["layer"] <= stage["details"]["predicted_latency_ms"] <= goal
    assert stage["details"]["predicted_speedup"] == pytest.approx(whole / stage["details"]["predicted_latency_ms"])
    assert stage["details"]["measured_latency_ms"] > 0
    assert stage["details"]["budget"] == {"latency_ms": goal}


def test_a_size_is_that_of_the_file(tmp_path: Path, files: dict[str, Path], teacher_folder: Path) -> None:
    small(files, teacher_folder, tmp_path, size=budget(size_mib=0.035, recovery_epochs=0)).run()
    stage = stage_of(tmp_path, "size")
    assert stage["details"]["measured_size_mib"] == pytest.approx(stage["size_mib"])
    assert stage["details"]["measured_size_mib"] <= stage["details"]["predicted_size_mib"] <= 0.035


def test_what_is_within_the_budget_already_stays_as_it_is(
    tmp_path: Path, files: dict[str, Path], teacher_folder: Path
) -> None:
    state = small(files, teacher_folder, tmp_path, count=budget(parameters=10**9)).run().state
    assert state.records[-1].model == state.records[-2].model


def test_the_tightest_budget_leaves_one_layer_that_runs(
    tmp_path: Path, files: dict[str, Path], teacher_folder: Path
) -> None:
    with pytest.raises(RecipeError) as told:
        small(files, teacher_folder, tmp_path, count=budget(parameters=10)).run()
    (fault,) = told.value.faults
    assert fault.setting == "prune.budget.parameters"
    assert not [name for name in made(tmp_path) if name.startswith("budget")]  # refused before any of its work
    least = int(fault.rule.split()[-2].replace(",", ""))
    small(files, teacher_folder, tmp_path, count=budget(parameters=least)).run()
    stage = stage_of(tmp_path, "count")
    assert stage["parameters"] == least
    assert stage["layers"] == [{"heads": 1, "neurons": 8}]


def test_a_speed_out_of_reach_is_refused_with_what_can_be_had(
    tmp_path: Path, files: dict[str, Path], teacher_folder: Path
) -> None:
    with pytest.raises(RecipeError, match=r"speedup = 1000\.0: is out of reach: .* at most \d"):
        small(files, teacher_folder, tmp_path, fast=budget(speedup=1000.0)).run()


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({}, "speedup"),
        ({"speedup": 2.0, "parameters": 100}, "parameters"),
        ({"speedup": 1.0}, "speedup"),
        ({"speedup": float("nan")}, "speedup"),
        ({"latency_ms": 0.0}, "latency_ms"),
        ({"size_mib": -1.0}, "size_mib"),
        ({"parameters": 0}, "parameters"),
        ({"speedup": 2.0, "widths": 1}, "widths"),
        ({"speedup": 2.0, "schedule": Curve.cubic}, "schedule"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], setting: str) -> None:
    assert [fault.setting for fault in Budget(**given).faults()] == [setting]


def test_a_student_that_cannot_be_taken_apart_is_refused_with_what_can() -> None:
    teacher = BertConfig(num_hidden_layers=1)
    (fault,) = Budget(speedup=2.0).faults(Known(student=BiLstm().config(teacher)))
    assert fault.setting == "speedup"
    assert all(family in fault.remedy for family in FAMILIES)
