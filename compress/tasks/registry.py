"""The tasks by name, and which of them labels or a saved model belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compress.tasks.base import Task, TaskKind
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression

TASKS: dict[str, type[Task]] = {}
"""The tasks by the names that recipes use. Those registered later are asked first what labels and heads are theirs."""


def register(task: type[Task]) -> None:
    """Make a task known by its name; raises ValueError where the name stands for another."""
    if TASKS.setdefault(task.name, task) is not task:
        raise ValueError(f"there is a task {task.name!r} already: {TASKS[task.name].__qualname__}")


register(Classification)  # takes any labels, and so is asked last
register(Regression)


def task_of_labels(kind: TaskKind, labels: Sequence[str]) -> Task:
    """Return the task that ``labels``, those of the training split, stand for; ``auto`` looks at them.

    Raises ValueError where ``kind`` is regression and a label is no number.
    """
    if kind is not TaskKind.auto:
        return TASKS[kind.value].of_labels(labels)
    return next(task for task in reversed(TASKS.values()) if task.fits(labels)).of_labels(labels)


def task_of_config(config: Any) -> Task:
    """Return the task of a saved model's transformers configuration."""
    return next(found for task in reversed(TASKS.values()) if (found := task.of_config(config)) is not None)
