"""What models and artifacts are worth on the test rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.benchmark.figures import AgainstTrained
from compress.benchmark.latency import Reader
from compress.benchmark.way import Way
from compress.data.dataset import Split
from compress.errors import ModelError, in_one_line
from compress.files import hash_file
from compress.models.loading import load_config, load_tokenizer
from compress.models.tokens import tokenize
from compress.pipeline.answers import OfModel, kept_logits
from compress.pipeline.artifact import Artifact
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.runtimes.devices import Device
from compress.runtimes.rows import one_by_one
from compress.tasks.base import Array, ByClass
from compress.tasks.paired import Difference


class CannotRunError(Exception):
    """A runtime failed with a model; ``reason`` is what it raised, which the message tells in one line."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason
        super().__init__(in_one_line(reason))


class ScoredRows:
    """Rows as each model's tokens, logits on them from the cache, and what they are worth.

    They are the test rows, unless others are given.
    """

    def __init__(self, state: State, rows: Split | None = None) -> None:
        self.state, self.rows = state, rows or state.data.test
        self.known: dict[str, Reader] = {}

    def reader(self, folder: Path) -> Reader:
        """Return how a model reads the rows; models with the same tokenizer share one."""
        key = hash_file(folder / "tokenizer.json") + hash_file(folder / "tokenizer_config.json")
        if key not in self.known:
            tokenizer = load_tokenizer(folder)
            tokens = tokenize(self.rows, tokenizer, tokenizer.model_max_length)
            self.known[key] = Reader(tokenizer, tokens)
        return self.known[key]

    def logits(self, model: Model) -> Array:
        """Return a PyTorch model's logits on the rows, as the data's task reads them."""
        return self._read(OfModel(model).of_tokens(self.reader(model.folder).tokens, self.state.workshop), model.folder)

    def answers(self) -> Array | None:
        """Return the teacher's logits on the rows, as the data's task reads them; None where it answers only some."""
        weights = self.state.given_answers.weights(self.rows)
        if weights is not None and not weights.all():
            return None
        given = self.state.given_answers.logits(self.rows, self.state.workshop)
        return given if self.state.teacher is None else self._read(given, self.state.teacher.folder)

    def _read(self, logits: Array, folder: Path) -> Array:
        return self.state.data.task.aligned(logits, load_config(folder, weights=False))

    def of_way(self, way: Way, device: Device, threads: int) -> Array:
        """Return the logits of a way of running on a device, given one row at a time, as it is served.

        They are as the data's task reads them. Raises CannotRunError for whatever the runtime raises.
        """

        def predict() -> Array:
            try:
                session = way.runtime.load(way.folder, device, threads=threads, variant=way.variant.name)
                return one_by_one(session, tokens, f"accuracy, {device.name}, {way.label}")
            except Exception as error:  # runtimes' errors share no base class
                raise CannotRunError(error) from error

        tokens = self.reader(way.folder).tokens
        how = f"{way.runtime.name} {way.variant.name} on {device.identity}"
        return self._read(kept_logits(self.state.workshop, how, way.key, tokens, predict), way.folder)

    def against_trained(self, artifact: Artifact, logits: Array) -> AgainstTrained | None:
        """Return how an artifact compares with the model that was trained for it; None where that is the student.

        Raises ModelError where they agree on fewer rows than they must.
        """
        if artifact.trained is None:
            return None
        expected = self.logits(artifact.trained.model)
        agreement, least = self.state.data.task.agreement(logits, expected), artifact.trained.agreement
        if agreement < least:
            raise ModelError(
                f"{artifact.name}: agrees with the trained model on {agreement:.2%} of the test rows, below "
                f"its setting agreement = {least:g}. Train it longer, lower that, or leave it out; "
                "finished work is kept, so the next run resumes from there."
            )
        difference = float(np.abs(logits - expected).max())
        return AgainstTrained(rows=len(logits), agreement=agreement, max_abs_difference=difference)

    def metric(self, logits: Array) -> float:
        """Return the main metric."""
        return self.state.data.task.metrics(logits, self.rows.known_labels)[self.state.data.task.main_metric]

    def scores(self, logits: Array, teacher_metric: float | None) -> dict[str, Any]:
        """Return metrics, their intervals and the share of the teacher's metric, as fields of an entry."""
        labels, task = self.rows.known_labels, self.state.data.task
        metrics = task.metrics(logits, labels)
        return {
            "metrics": metrics,
            "interval": task.intervals(logits, labels),
            "retained": share(metrics[task.main_metric], teacher_metric),
        }

    def differences(self, logits: Array, others: Mapping[str, Array]) -> dict[str, Difference]:
        """Return the paired difference of the main metric to each of ``others``, by its name."""
        labels, task = self.rows.known_labels, self.state.data.task
        return {name: task.difference(logits, other, labels) for name, other in others.items()}

    def by_class(self, logits: Array) -> list[ByClass]:
        """Return how well each class is found."""
        return self.state.data.task.by_class(logits, self.rows.known_labels)


def share(metric: float, teacher: float | None) -> float | None:
    """Return a metric over the teacher's; None where that is 0, or not known."""
    return metric / teacher if teacher is not None and teacher > 0 else None
