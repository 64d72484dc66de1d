"""Each head of a multi-task student by itself: a model, its ONNX graph, and what the graph is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.dataset import Dataset
from compress.errors import ModelError
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.models.multi_task import AUTO_CLASS, MultiTaskForSequenceClassification, classifier_of
from compress.models.tokens import tokenize
from compress.onnx.folder import onnx_of
from compress.pipeline.answers import OfModel, kept_logits
from compress.pipeline.model import Model
from compress.pipeline.record import Details
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product, Workshop
from compress.runtimes.devices import CPU
from compress.runtimes.registry import load_session
from compress.runtimes.rows import one_by_one
from compress.tasks.base import Task

TOLERANCE = 1e-3  # largest difference of a logit of the graph from PyTorch's


@dataclass(frozen=True)
class LearntTask:
    """One of the tasks that a student learns: its rows, and who teaches it."""

    name: str
    data: Dataset
    teacher: Model

    @property
    def key(self) -> list[Any]:
        """What is learned depends on this."""
        rows = self.data.transfer.fingerprint, self.data.validation.fingerprint
        return [self.name, self.teacher.key, *rows, self.data.task.head_config(), self.data.task.decides]

    @property
    def measured_on(self) -> str:
        """Which rows its test rows are: where none were given, they are the validation rows."""
        return "validation" if self.data.test.fingerprint == self.data.validation.fingerprint else "test"


@dataclass(frozen=True, kw_only=True)
class WrittenHeads(Details):
    """What the graph of each head is worth."""

    heads: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class WrittenHead:
    """One head: its folders by their place in the stage's, its figures, JSON-ready, and both as a sentence."""

    folders: Mapping[str, Path]
    figures: Mapping[str, Any]
    note: str


def with_auto(task: Task) -> dict[str, Any]:
    """Return the entries that make a task's head, and the ``Auto`` class that builds it."""
    return task.head_config() | {AUTO_CLASS: task.auto.__name__}


def head_alone(name: str, several: Product, workshop: Workshop) -> Model:
    """Return a head of a saved multi-task student, with the encoder, as a model of its own."""

    def extract(folder: Path) -> None:
        model = load_model(several.folder)
        assert isinstance(model, MultiTaskForSequenceClassification)
        save_model(classifier_of(model, name), load_tokenizer(several.folder), folder)

    return Model.of(workshop.make(Kind("head", revision=1), [several.key, name], extract))


def written_head(head: LearntTask, several: Product, workshop: Workshop, seed: int) -> WrittenHead:
    """Write a head of a multi-task student as a model and as an ONNX graph, and score the graph beside the teacher.

    Raises ModelError where a logit of the graph differs from PyTorch's by more than `TOLERANCE`.
    """
    task, test, labels = head.data.task, head.data.test, head.data.test.known_labels
    alone = head_alone(head.name, several, workshop)
    graph = onnx_of(alone, State.begin(head.data, workshop, seed))
    tokenizer = load_tokenizer(alone.folder)
    tokens = tokenize(test, tokenizer, tokenizer.model_max_length)
    logits = OfModel(alone).of_tokens(tokens, workshop)
    answered = kept_logits(
        workshop, "head, onnxruntime on cpu", graph.key, tokens,
        lambda: one_by_one(load_session(graph.folder, CPU), tokens, f"accuracy, {head.name}"),
    )  # fmt: skip
    furthest = float(np.abs(answered - logits).max())
    if furthest > TOLERANCE:
        raise ModelError(
            f"multi_task: the ONNX graph of the head {head.name} differs from PyTorch by {furthest:.2g} in a logit, "
            f"more than {TOLERANCE:g}. To leave the graphs out: prepare.multi_task.write_heads=false."
        )
    given = {alone: answered, head.teacher: OfModel(head.teacher).logits(test, workshop)}
    ours, theirs = (task.aligned(values, load_config(model.folder)) for model, values in given.items())
    metric, metrics, taught = task.main_metric, task.metrics(ours, labels), task.metrics(theirs, labels)
    difference = task.difference(ours, theirs, labels)
    figures = {
        "name": head.name, "task": task.name, "rows": len(labels), "rows_are": head.measured_on, "metrics": metrics,
        "interval": {key: list(bounds) for key, bounds in task.intervals(ours, labels).items()}, "teacher": taught,
        "difference": [difference.value, difference.low, difference.high], "max_abs_difference": furthest,
        "path": f"heads/{head.name}", "onnx": f"heads/{head.name}/onnx",
    }  # fmt: skip
    note = (
        f"{head.name} as ONNX (heads/{head.name}/onnx): {metric} {metrics[metric]:.4f}, its teacher "
        f"{taught[metric]:.4f}, on {len(labels):,} {head.measured_on} rows"
    )
    folders = {f"heads/{head.name}": alone.folder, f"heads/{head.name}/onnx": graph.folder}
    return WrittenHead(folders=folders, figures=figures, note=note)
