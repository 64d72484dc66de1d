"""A teacher that only answers: a table of logits, in this one file, teaches a student through a whole run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.augment.perturb import Perturb
from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.data.dataset import Dataset, Split
from compress.distill.dual import Dual
from compress.distill.losses import AttentionScores, HiddenStates, SoftTargets
from compress.distill.progressive import Progressive
from compress.distill.stage import Distill
from compress.distill.theseus import Theseus
from compress.errors import ModelError, RecipeError
from compress.files import hash_text
from compress.known import Known
from compress.models.loading import save_model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.prune.heads import PruneHeads
from compress.quantize.int8 import DynamicInt8
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.student.base import Student
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.student.mobile import Mobile
from compress.student.saved import Saved
from compress.student.shared import Shared
from compress.student.words import Pieces, WordStart
from compress.tasks.base import Array
from compress.teachers.base import BaseTeacher, Inspection
from tests.conftest import reviews, tiny_model, tiny_tokenizer, write_tsv
from tests.run.test_recipe import report

LABELS = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}


@dataclass(frozen=True)
class Table:
    """Logits by the hash of a row's text."""

    rows: Mapping[str, list[float]]

    @property
    def key(self) -> str:
        """That of the content."""
        return hash_text(json.dumps(self.rows, sort_keys=True))

    def logits(self, rows: Split, workshop: Workshop) -> Array:
        """Look the rows up."""
        try:
            return np.array([self.rows[hash_text(text)] for text in rows.texts], np.float32)
        except KeyError:
            raise ModelError("the table has no answer for a row") from None

    def weights(self, rows: Split) -> None:
        """All the same."""


@dataclass(kw_only=True)
class TableTeacher(BaseTeacher):
    """Answers that lie in a file."""

    file: str

    def inspect(self, data: Dataset) -> Inspection:
        """Return that it only answers."""
        return Inspection(data=data, lines=(f"{self.file} has the answers",))

    def __call__(self, state: State) -> State:
        """Return the state with the answers."""
        table = Table(json.loads(Path(self.file).read_text()))
        return state.with_teacher(self.record("teacher", notes=[f"{len(table.rows)} rows"]), table)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, a table of confident answers that are right, and an untrained BERT."""
    folder = tmp_path_factory.mktemp("answers")
    answers = {}
    for name, count, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 60, 3)):
        rows = reviews(count, seed)
        write_tsv(folder / f"{name}.tsv", rows)
        answers |= {hash_text(text): [-2.0, 2.0] if label == "good" else [2.0, -2.0] for label, text in rows}
    (folder / "answers.json").write_text(json.dumps(answers))
    save_model(tiny_model(**LABELS), tiny_tokenizer(), folder / "student")
    return folder


def taught(world: Path, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "recipe": "answers", "name": "run", "output": str(world / "run"), "cache": str(world / "cache"),
        "data": Files(**{name: str(world / f"{name}.tsv") for name in ("train", "validation", "test")}),
        "teacher": TableTeacher(file=str(world / "answers.json")),
        "student": Saved(model=str(world / "student")),
        "distill": Distill(losses={"soft": SoftTargets()}, epochs=6, learning_rate=1e-2, batch_size=16),
        "quantize": {"dynamic": DynamicInt8()},
        "benchmark": Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, labels_only=False, teacher_int8=False),
    }  # fmt: skip
    return Recipe(**settings | changes)


def test_answers_alone_teach_prune_quantize_and_are_reported(world: Path) -> None:
    state = taught(world, prune={"heads": PruneHeads(ratio=0.3, rows=40)}).run().state
    found = report(world)
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert list(stages) == ["teacher", "student", "distill", "heads"]
    teacher = stages["teacher"]
    assert (teacher["role"], teacher["metrics"]["accuracy"]) == ("teacher", 1.0)
    assert not {"latency", "speedup", "parameters", "size_mib"} & teacher.keys()
    assert stages["distill"]["agreement"] == stages["distill"]["metrics"]["accuracy"] > 0.9  # learned from the table
    assert state.teacher is None
    artifacts = {artifact["name"]: artifact for artifact in found["artifacts"]}
    assert list(artifacts) == ["student", "onnx", "dynamic"]
    assert all("speedup" not in artifact and artifact["latency"] for artifact in artifacts.values())
    assert artifacts["onnx"]["agreement"] == 1.0
    assert artifacts["dynamic"]["int8_matmuls"][0] > 0
    assert found["recommended"] in artifacts
    assert "teacher" in (world / "run" / "report.md").read_text()
    assert not (world / "run" / "stages" / "00-teacher").exists()


WORDS: dict[str, Any] = {"tokens": Pieces.words, "start": WordStart.random, "min_count": 1}


@pytest.mark.parametrize(
    "student", [BiLstm(**WORDS), Cnn(**WORDS), Bert(), Shared(), Mobile()], ids=lambda student: type(student).__name__
)
def test_answers_teach_a_new_student_that_is_built_without_the_teachers_model(
    world: Path, tmp_path: Path, student: Student
) -> None:
    if isinstance(student, Bert):
        student = Bert(layers=1, start=str(world / "student"))
    elif isinstance(student, Shared | Mobile):
        student = replace(student, model=str(world / "student"))
    run = taught(world, student=student, output=str(tmp_path / "run"), quantize={}, export={}, augment={}).run()
    assert [(stage.name, stage.metrics["accuracy"] > 0.9) for stage in run.report.stages] == [
        ("teacher", True),
        ("distill", True),  # learned from the table
    ]


def test_the_models_are_told_before_work(world: Path, tmp_path: Path) -> None:
    told = [str(tried) for tried in check(taught(world, output=str(tmp_path))).models]
    assert told[0] == f"teacher: {world / 'answers.json'} has the answers"
    assert told[1].startswith(f"student: {world / 'student'} is used as it is; ")


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"student": Bert(layers=2)}, "student"),
        ({"student": BiLstm(start=WordStart.random)}, "student"),
        ({"student": Mobile()}, "student"),
        ({"distill": Distill(losses={"soft": SoftTargets(), "hidden": HiddenStates()})}, "distill.losses.hidden"),
        ({"distill": Distill(losses={"attention": AttentionScores()})}, "distill.losses.attention"),
        ({"prepare": {"progressive": Progressive()}}, "prepare.progressive.epochs"),
        ({"prepare": {"theseus": Theseus()}}, "prepare.theseus.rate"),
        ({"prepare": {"dual": Dual()}}, "prepare.dual.teacher"),
        ({"augment": {"perturb": Perturb(replace_rate=0)}}, "augment.perturb.mask_rate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_weights_is_refused_in_one_fault(
    world: Path, tmp_path: Path, changes: dict[str, Any], setting: str
) -> None:
    with pytest.raises(RecipeError, match="only answers") as refused:
        check(taught(world, output=str(tmp_path), **changes))
    assert [fault.setting for fault in refused.value.faults] == [setting]


@pytest.mark.parametrize("kind", [Shared, Mobile])
def test_a_model_to_build_from_must_be_there_and_fit(world: Path, tmp_path: Path, kind: type[Shared | Mobile]) -> None:
    for changes, setting in (
        ({"model": str(tmp_path / "missing")}, "student.model"),
        ({"model": str(world / "student"), "layers": 9}, "student.layers"),
    ):
        with pytest.raises(RecipeError) as refused:
            check(taught(world, output=str(tmp_path / "run"), student=kind(**changes)))
        assert [fault.setting for fault in refused.value.faults] == [setting]
    (fault,) = kind(model=str(world / "student")).faults(Known(teacher=tiny_model().config))
    assert "only for a teacher without weights" in str(fault)


def test_a_row_without_an_answer_is_one_error(world: Path, tmp_path: Path) -> None:
    (tmp_path / "few.json").write_text("{}")
    recipe = taught(world, teacher=TableTeacher(file=str(tmp_path / "few.json")), output=str(tmp_path / "run"))
    with pytest.raises(ModelError, match="no answer for a row"):
        recipe.run()
