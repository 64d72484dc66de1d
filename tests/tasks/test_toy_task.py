"""A task that the package does not know, complete in this file, through a whole run: two scores per text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.distill.losses import HardLabels, LogitsMSE, SoftTargets
from compress.distill.stage import Distill
from compress.errors import RecipeError
from compress.prune.heads import PruneHeads
from compress.quantize.int8 import DynamicInt8
from compress.run.check import check
from compress.run.predict import predict
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.tasks import paired
from compress.tasks.adoption import Adoption, Refusal
from compress.tasks.base import Array, Baseline, Features, Task
from compress.tasks.choice import TaskChoice
from compress.tasks.heads import MARK
from compress.tasks.paired import Difference
from compress.tasks.registry import TASKS, register
from compress.teachers.model import Teacher
from tests.conftest import BAD, GOOD, reviews, save_tiny, write_tsv

OUTPUTS = ("praise", "blame")


@dataclass(frozen=True)
class Opinions(Task):
    """How much praise and how much blame is in a text: two numbers, written as "0.25 0.5"."""

    spread: float  # variance of the training labels, over both numbers

    name = "opinions"
    auto = AutoModelForSequenceClassification
    head = "head of two scores"
    pipeline = "text-classification"
    predicts = "pairs of scores"
    distributes = False
    metric_names = ("fit",)
    test = "a paired bootstrap"
    missing = float("nan")

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return whether every label is two numbers."""
        return all(cls.refusal(label) is None for label in set(labels))

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task with the labels' variance."""
        return cls(float(np.var([_numbers(label) for label in labels])))

    @classmethod
    def refusal(cls, label: str) -> tuple[str, str] | None:
        """Return what is wrong with a label that is not two numbers."""
        try:
            _numbers(label)
        except ValueError:
            return f"the label {label!r} is not two numbers.", "Write praise and blame, as in 0.25 0.5."
        return None

    def encode(self, label: str) -> tuple[float, float]:
        """Return both numbers."""
        return _numbers(label)

    def encoded(self, codes: Sequence[tuple[float, float]]) -> Array:
        """Return them (rows, 2)."""
        return np.asarray(codes, dtype=np.float32)

    @classmethod
    def owns(cls, config: Any) -> bool:
        """Return False: the head alone does not tell it, only the mark does."""
        return False

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task with the variance that the configuration keeps."""
        return cls(config.label_spread)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Praise and blame."""
        return OUTPUTS

    def head_config(self) -> dict[str, Any]:
        """Return two outputs that are trained by squared error."""
        names = dict(enumerate(OUTPUTS))
        return {
            MARK: self.name, "id2label": names, "label2id": {name: index for index, name in names.items()},
            "num_labels": 2, "problem_type": "regression", "label_spread": self.spread,
        }  # fmt: skip

    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how the outputs are read: in the order of their names."""
        if getattr(config, MARK, None) != self.name:
            raise Refusal("was trained for something else")
        return Adoption(OUTPUTS, {name: index for index, name in enumerate(OUTPUTS)})

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have both numbers."""
        return ~labels.isnan().any(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Squared error, mean over both (batch,)."""
        return ((logits - labels) ** 2).mean(-1)

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """Squared error."""
        return functional.mse_loss(logits, others)

    def predictions(self, logits: Array) -> Array:
        """Return both scores (rows, 2)."""
        return logits

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return both scores by name."""
        return [dict(zip(OUTPUTS, map(float, row), strict=True)) for row in logits]

    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Return "0.25 0.50"."""
        return [self.shown_label(row) for row in logits]

    def shown_label(self, label: Any) -> str:
        """Return "0.25 0.50"."""
        return f"{label[0]:.2f} {label[1]:.2f}"

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return the share of the labels' variance that is explained."""
        return {"fit": float(1 - self._errors(logits, labels).mean() / self.spread)}

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return the interval of a mean."""
        errors = self._errors(logits, labels) / self.spread
        half = 1.96 * errors.std() / np.sqrt(len(errors))
        return {"fit": (float(1 - errors.mean() - half), float(1 - errors.mean() + half))}

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows whose scores differ by less than 0.05."""
        return float((np.abs(logits - others) < 0.05).all(-1).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare by a paired bootstrap."""
        gained = (self._errors(others, labels) - self._errors(logits, labels)) / self.spread
        columns = np.stack([gained, np.ones(len(gained))], axis=1).astype(np.float64)
        return paired.of_resampled_rows(self.main_metric, columns, lambda sums: sums[:, 0] / sums[:, 1])

    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return the mean of the training labels."""
        mean = labels.mean(0)
        return Baseline(kind="the mean", parameters=2, logits=lambda given: np.tile(mean, (len(given), 1)))

    @staticmethod
    def _errors(logits: Array, labels: Array) -> Array:
        errors: Array = ((logits - labels) ** 2).mean(-1)
        return errors


def _numbers(label: str) -> tuple[float, float]:
    praise, blame = map(float, label.split())
    return praise, blame


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    register(Opinions)
    yield
    del TASKS[Opinions.name]


def opinions(rows: int, seed: int) -> list[tuple[str, ...]]:
    """Return (label, text) rows: the shares of good and of bad words, in quarters."""
    made: list[tuple[str, ...]] = []
    for _, text in reviews(rows, seed):
        words = text.split()
        praise, blame = (sum(word in kind for word in words) / 4 for kind in (GOOD, BAD))
        made.append((f"{praise} {blame}", text))
    return made


def recipe(folder: Path, **losses: Any) -> Recipe:
    files = {
        name: str(write_tsv(folder / f"{name}.tsv", opinions(rows, seed)))
        for name, rows, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 60, 3))
    }
    return Recipe(
        recipe="toy", name="run", data=Files(**files),
        teacher=Teacher(
            model=str(folder / "teacher"), epochs=8, learning_rate=1e-2, batch_size=16, max_tokens=32, least_steps=0
        ),
        student=Bert(layers=2),
        distill=Distill(
            losses=losses or {"mse": LogitsMSE(), "hard": HardLabels()}, epochs=3, learning_rate=5e-3, batch_size=16
        ),
        prune={"heads": PruneHeads(ratio=0.4, rows=40)},
        quantize={"dynamic": DynamicInt8()},
        benchmark=Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02),
        max_drop=None,  # which form holds on 40 rows depends on the processor
        output=str(folder / "run"), cache=str(folder / "cache"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, known: None) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("toy")
    save_tiny(folder / "teacher")
    recipe(folder).run()
    return folder


def test_the_labels_say_what_the_task_is(tmp_path: Path) -> None:
    save_tiny(tmp_path / "teacher")
    assert isinstance(recipe(tmp_path).data.load("auto", 1).task, Opinions)


def test_a_run_distils_prunes_quantizes_and_reports_it(finished: Path) -> None:
    report = json.loads((finished / "run" / "report.json").read_text())
    about = {"kind": "opinions", "labels": [], "main_metric": "fit", "test": "a paired bootstrap"}
    assert report["task"] == about
    assert [stage["name"] for stage in report["stages"]] == ["teacher", "distill", "heads"]
    assert [artifact["name"] for artifact in report["artifacts"]] == ["student", "onnx", "dynamic"]
    assert report["stages"][0]["metrics"]["fit"] > 0.3
    assert all(0 <= artifact["agreement"] <= 1 for artifact in report["artifacts"])
    assert report["artifacts"][1]["max_abs_difference"] < 1e-3
    assert report["artifacts"][2]["int8_matmuls"][0] > 0
    baseline = next(entry for entry in report["baselines"] if entry["name"] == "tfidf")
    assert baseline["kind"] == "the mean"
    assert baseline["metrics"]["fit"] < 0.1
    heads = [len(layer) for layer in json.loads((finished / "run/student/config.json").read_text())["kept_heads"]]
    assert sum(heads) < 8


def test_the_report_and_the_card_are_about_it(finished: Path) -> None:
    page = (finished / "run" / "report.md").read_text()
    assert "by a paired bootstrap" in page
    card = (finished / "run" / "student" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "AutoModelForSequenceClassification.from_pretrained(folder)" in card


def test_a_saved_student_answers_as_itself(finished: Path) -> None:
    (answer,) = predict(finished / "run" / "student", ["a good good film"])
    assert set(answer) == {"praise", "blame"}
    assert AutoTokenizer.from_pretrained(finished / "run" / "student") is not None


def test_a_finished_model_of_it_is_used_as_it_is(finished: Path, tmp_path: Path) -> None:
    tried = recipe(tmp_path)
    tried.teacher.model = str(finished / "run" / "student")
    (model, *_) = check(tried).models
    assert "is used as it is" in model.line


def test_losses_of_distributions_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "teacher")
    with pytest.raises(RecipeError, match="needs classes, but the labels are pairs of scores"):
        check(recipe(tmp_path, soft=SoftTargets()))


def test_a_label_that_it_cannot_read_is_named_with_its_place(tmp_path: Path) -> None:
    save_tiny(tmp_path / "teacher")
    broken = recipe(tmp_path)
    broken.task = TaskChoice(kind=Opinions.name)
    write_tsv(tmp_path / "test.tsv", [("0.25", "a fine film")])
    with pytest.raises(RecipeError, match=r"test\.tsv, line 1: the label '0\.25' is not two numbers\. Write praise"):
        check(broken)
