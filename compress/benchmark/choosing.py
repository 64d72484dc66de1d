"""Validation rows, on which the artifact to recommend is chosen; the test rows then tell what it is worth."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from compress.benchmark.figures import Chosen
from compress.benchmark.scores import CannotRunError, ScoredRows
from compress.benchmark.way import Way
from compress.pipeline.state import State
from compress.runtimes.devices import Device
from compress.runtimes.pytorch import torch_threads
from compress.tasks.base import Array

MOST_ROWS = 5000  # validation rows that every artifact answers one by one


class Choosing:
    """Answers on the validation rows, or on a seeded sample of `MOST_ROWS` of them."""

    def __init__(self, state: State) -> None:
        validation = state.data.validation
        drawn = np.random.default_rng(state.seed).permutation(len(validation))[:MOST_ROWS]
        self.scores = ScoredRows(state, validation.take(np.sort(drawn)) if len(drawn) < len(validation) else validation)

    @cached_property
    def student(self) -> Array:
        """The student's logits (rows, outputs)."""
        return self.scores.logits(self.scores.state.given_student)

    def of_student(self) -> Chosen:
        """Return what the student itself answers."""
        return self._chosen(self.student)

    def of_way(self, way: Way, device: Device, threads: int) -> Chosen:
        """Return what an artifact answers, given one row at a time; raises whatever the runtime raises."""
        try:
            with device.active(), torch_threads(threads):
                return self._chosen(self.scores.of_way(way, device, threads))
        except CannotRunError as failure:
            raise failure.reason from failure

    def _chosen(self, logits: Array) -> Chosen:
        task, labels = self.scores.state.data.task, self.scores.rows.known_labels
        difference = task.difference(logits, self.student, labels)
        return Chosen(rows=len(labels), metrics=task.metrics(logits, labels), difference=difference)
