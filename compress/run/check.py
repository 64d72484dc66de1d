"""The check before work: everything that can be known of a run before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from compress.data import Dataset
from compress.errors import CompressError, DataError, Fault, RecipeError
from compress.models.auto import knows
from compress.models.positions import longest_row
from compress.models.row_lengths import with_cuts
from compress.pipeline.workshop import Workshop
from compress.plugins import use
from compress.run.place import identity, name_faults, other_run, place_faults
from compress.settings import all_faults
from compress.student.saved import Saved
from compress.tasks.base import Task
from compress.teachers.examination import examine

if TYPE_CHECKING:
    from compress.run.recipe import Recipe


MAX_UNKNOWN = 0.1  # largest share of tokens that a saved student may not know, where no teacher has a say


@dataclass(frozen=True)
class Checked:
    """What a check before work found: the data set, and a line on each model that is used or trained."""

    data: Dataset
    models: tuple[Tried, ...]


@dataclass(frozen=True)
class Tried:
    """A model that a run takes or trains: which of the two and why, and what it answered on some rows."""

    line: str
    answers: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join((self.line, *self.answers))


def check(recipe: Recipe, say: Callable[[str], None] = lambda _: None) -> Checked:
    """Return what is known of a run that can start; raises RecipeError with all that is wrong.

    Finished models are tried on some rows; what they answer is kept in the cache.
    """
    faults: list[Fault] = [*use(recipe.uses), *all_faults(recipe)]
    if not any(name_faults(recipe)):
        faults += place_faults(recipe)
    for name, augmentation in recipe.augment.items():
        if not any(augmentation.faults()):
            faults += _attempt(f"augment.{name}", augmentation.look)
    data: Dataset | None = None
    if not any(fault.setting.startswith("data") or fault.setting == "task" for fault in faults):
        say("reading the data")

        def load() -> None:
            nonlocal data
            data = recipe.data.load(recipe.task, recipe.seed)

        faults += _attempt("data", load)
    models: list[Tried] = []
    if data is not None:
        for name, augmentation in recipe.augment.items():
            faults += [replace(f, setting=f"augment.{name}{f.setting}") for f in augmentation.data_faults(data)]
        faults += other_run(recipe, identity(recipe, data.fingerprint))
        for path, stage in recipe.trained():
            faults += [fault.under(path) for fault in stage.task_faults(data.task)]
        if why := data.task.too_few(data.train.known_labels):
            faults.append(Fault("data.train_rows", len(data.train), why, "Use more rows."))
        if not any(fault.setting.startswith("teacher") for fault in faults):
            faults += _attempt("teacher", lambda: faults.extend(_model_faults(recipe, data)))
        if not faults:
            say("trying the models on some rows")
            faults += _attempt("teacher", lambda: models.extend(_tried(recipe, data)))
    if faults or data is None:
        raise RecipeError(faults)
    weights = recipe.teacher.inspect(data).weights
    cut = data if weights is None else with_cuts(data, weights.tokenizer, weights.max_tokens)
    return Checked(cut, tuple(models))


def told(data: Dataset) -> list[str]:
    """Return the block that a run begins with: how the rows were read, and what must be known of them."""
    facts = [] if data.summary is None else list(data.summary.facts())
    return [f"data: {data.name}", *(f"  {what}: {words}" for what, words in facts), *(f"  {n}" for n in data.notes)]


def _tried(recipe: Recipe, data: Dataset) -> Iterator[Tried]:
    """Yield the teacher's models and a saved student, tried on some rows where finished; raises ModelError."""
    workshop = Workshop(recipe.cache_folder)
    inspection = recipe.teacher.inspect(data)
    for line, subject in zip_longest(inspection.lines, recipe.teacher.subjects(data)):
        yield Tried(f"teacher: {line}", tuple(examine(subject, workshop)) if subject else ())
    if isinstance(recipe.student, Saved) and not recipe.alone:
        weights = inspection.weights
        limits = (None, MAX_UNKNOWN) if weights is None else (weights.max_tokens, weights.max_unknown)
        subject = recipe.student.subject(inspection.data, *limits)
        yield Tried(f"student: {subject.name} is used as it is", tuple(examine(subject, workshop)))


def _model_faults(recipe: Recipe, given: Dataset) -> list[Fault]:
    inspection = recipe.teacher.inspect(given)
    weights, data = inspection.weights, inspection.data
    if weights is None and (found := _weight_faults(recipe)):
        return found
    teacher, fine_tuned = (None, False) if weights is None else (weights.config, weights.must_train)
    faults = [fault.under("student") for fault in recipe.student.teacher_faults(teacher, fine_tuned)]
    if not faults and not any(recipe.student.faults()):
        faults += [fault.under("student") for fault in recipe.student.task_faults(data.task)]
        if isinstance(recipe.student, Saved) and not recipe.alone:
            faults += [fault.under("student") for fault in recipe.student.label_faults(data.task)]
    if weights is not None:
        who = "student" if recipe.alone else "teacher"
        faults += [fault.under("benchmark") for fault in recipe.benchmark.model_faults(weights.longest, who)]
    if faults or any(recipe.student.faults()):
        return faults
    student = recipe.student.config(teacher)
    faults += list(_head_faults(student, data.task))
    if faults:
        return faults
    if weights is None:
        faults += [fault.under("benchmark") for fault in recipe.benchmark.model_faults(longest_row(student), "student")]
    source = student.name_or_path if weights is None else weights.source
    faults += [fault.under("benchmark") for fault in recipe.benchmark.student_faults(student)]
    for path, stage in recipe.trained():
        found = list(stage.model_faults(student, teacher))
        found += stage.origin_faults(student, source, fine_tuned, recipe.seed)
        faults += [fault.under(path) for fault in found]
    return faults


def _weight_faults(recipe: Recipe) -> list[Fault]:
    """Return what needs a teacher's weights."""
    stages = [("student", recipe.student), *((f"augment.{name}", stage) for name, stage in recipe.augment.items())]
    return [fault.under(path) for path, stage in (*stages, *recipe.trained()) for fault in stage.weight_faults()]


def _head_faults(student: Any, task: Task) -> Iterator[Fault]:
    """Yield why a student of this configuration cannot answer the task's question."""
    if not knows(task.auto, type(student)):
        rule = f"has no {task.head}, which the task {task.name} needs"
        yield Fault("student", student.model_type, rule, "Choose student=bert.")
    elif task.by_token and getattr(student, "own_tokens", False):
        rule = f"does not share the teacher's tokens, and the task {task.name} needs an answer of both for every token"
        yield Fault("student", student.model_type, rule, "Choose a student with the teacher's tokens.")


def _attempt(setting: str, action: Callable[[], object]) -> list[Fault]:
    try:
        action()
    except RecipeError as error:
        return list(error.faults)
    except CompressError as error:
        of_rows = isinstance(error, DataError) and setting == "teacher"  # a label that no model knows
        return [Fault("data" if of_rows else setting, None, str(error).rstrip("."))]
    return []
