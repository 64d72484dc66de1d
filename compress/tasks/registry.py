"""The tasks by name, and which of them labels or a saved model belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from compress.errors import Fault
from compress.settings import nearest
from compress.tasks.base import Task
from compress.tasks.choice import AUTO, TaskChoice
from compress.tasks.classification import Classification
from compress.tasks.heads import MARK
from compress.tasks.multi_label import MultiLabel
from compress.tasks.ranking import Ranking
from compress.tasks.regression import Regression
from compress.tasks.spans import AnswerSpans
from compress.tasks.tags import Tags
from compress.tasks.vectors import SentenceVectors

TASKS: dict[str, type[Task]] = {}
"""The tasks by the names that recipes use. Those registered later are asked first what labels and heads are theirs."""
_listeners: list[Callable[[type[Task]], None]] = []


def register(task: type[Task]) -> None:
    """Make a task known by its name; raises ValueError where the name stands for another."""
    if task.name == AUTO or TASKS.setdefault(task.name, task) is not task:
        raise ValueError(f"There is already a task called {task.name!r}. Choose another name.")
    for listener in _listeners:
        listener(task)


def on_register(listener: Callable[[type[Task]], None]) -> None:
    """Call ``listener`` with every task that is known, and with every one that will be."""
    if listener not in _listeners:
        _listeners.append(listener)
    for task in list(TASKS.values()):
        listener(task)


register(Classification)  # takes any labels, and so is asked last
register(Regression)
register(MultiLabel)
register(Tags)
register(Ranking)
register(AnswerSpans)
register(SentenceVectors)


class Choices(Mapping[str, type[TaskChoice] | TaskChoice]):
    """What ``task=NAME`` stands for: the settings that name one of `TASKS`, or leave that to the labels."""

    def __getitem__(self, name: str) -> type[TaskChoice] | TaskChoice:
        if name == AUTO:
            return TaskChoice
        return TaskChoice(kind=TASKS[name].name)

    def __iter__(self) -> Iterator[str]:
        return iter([AUTO, *TASKS])

    def __len__(self) -> int:
        return 1 + len(TASKS)


CHOICES = Choices()


def task_faults(setting: str, name: str) -> Iterator[Fault]:
    """Yield a fault where no task has that name."""
    known = [AUTO, *TASKS]
    if name not in known:
        yield Fault(setting, name, "is not the name of a task", nearest(name, known))


def task_class(name: str, labels: Sequence[str] | None) -> type[Task]:
    """Return the task of that name; for ``auto`` the one that these labels, of the training split, look like.

    Without labels ``auto`` is classes.
    """
    if labels is None and name == AUTO:
        return Classification
    return TASKS[name] if name != AUTO else next(task for task in reversed(TASKS.values()) if task.fits(labels or ()))


def kind_of_config(config: Any) -> type[Task]:
    """Return the task that owns the head of a saved model's transformers configuration."""
    named = TASKS.get(getattr(config, MARK, None) or "")
    return named or next(task for task in reversed(TASKS.values()) if task.owns(config))


def task_of_config(config: Any) -> Task:
    """Return the task of a saved model's transformers configuration, with its labels."""
    return kind_of_config(config).of_config(config)
