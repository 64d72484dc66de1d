"""The check before work: everything that can be known of a run before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from compress.data import Dataset
from compress.errors import CompressError, DataError, Fault, RecipeError
from compress.known import Known
from compress.models.row_lengths import with_cuts
from compress.pipeline.workshop import Workshop
from compress.plugins import use
from compress.run.place import identity, name_faults, other_run, place_faults
from compress.settings import all_faults, children
from compress.student.saved import Saved
from compress.teachers.base import Inspection, Weights
from compress.teachers.examination import examine

if TYPE_CHECKING:
    from compress.run.recipe import Recipe


MAX_UNKNOWN = 0.1  # largest share of tokens that a saved student may not know, where no teacher has a say


@dataclass(frozen=True)
class Checked:
    """What a check before work found: the rows, and a line on each model that is used or trained."""

    rows: Dataset
    models: tuple[Tried, ...]
    weights: Weights | None = None  # the teacher's, whose tokenizer cuts long rows

    @cached_property
    def data(self) -> Dataset:
        """The data set, with how many rows and tokens are cut in its summary: every row is tokenized."""
        weights = self.weights
        return self.rows if weights is None else with_cuts(self.rows, weights.tokenizer, weights.max_tokens)


@dataclass(frozen=True)
class Tried:
    """A model that a run takes or trains: which of the two and why, and what it answered on some rows."""

    line: str
    answers: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join((self.line, *self.answers))


def check(
    recipe: Recipe, say: Callable[[str], None] = lambda _: None, cache: Path | None = None, *, refused: bool = False
) -> Checked:
    """Return what is known of a run that can start; raises RecipeError with all that is wrong.

    Finished models are tried on some rows, unless something is wrong already (``refused`` says so of what the caller
    found); what they answer is kept in ``cache``, by default the run's.
    """
    found = Found([*use(recipe.uses), *all_faults(recipe)])
    if not any(name_faults(recipe)):
        found.add(place_faults(recipe))
    known, data = Known(reading=True), None
    if not found.any_of("data", "task"):
        say("reading the data")
        with found.attempt("data"):
            data = recipe.data.load(recipe.task, recipe.seed, recipe.teacher.class_names)
            known = replace(known, data=data, task=data.task)
    if data is not None:
        found.add(other_run(recipe, identity(recipe, data.fingerprint)))
        if "training" not in data.answered and (why := data.task.too_few(data.train.known_labels)):
            found.add([Fault("data.train_rows", len(data.train), why, "Use more rows.")])
        if not found.any_of("teacher"):
            with found.attempt("teacher"):
                known = of_teacher(recipe.teacher.inspect(data), known)
                known = of_student(recipe, known, found)
    for part, settings in children(recipe):
        with found.attempt("teacher"):
            found.add(fault.under(part) for fault in all_faults(settings, recipe.known_to_parts(known)))
    models: list[Tried] = []
    if data is not None and not found.faults and not refused:
        say("trying the models on some rows")
        with found.attempt("teacher"):
            models += _tried(recipe, data, cache or recipe.cache_folder)
    if found.faults or data is None:
        raise RecipeError(found.faults)
    return Checked(data, tuple(models), recipe.teacher.inspect(data).weights)


def told(data: Dataset) -> list[str]:
    """Return the block that a run begins with: how the rows were read, and what must be known of them."""
    facts = [] if data.summary is None else list(data.summary.facts())
    return [f"data: {data.name}", *(f"  {what}: {words}" for what, words in facts), *(f"  {n}" for n in data.notes)]


def _tried(recipe: Recipe, data: Dataset, cache: Path) -> Iterator[Tried]:
    """Yield the teacher's models and a saved student, tried on some rows where finished; raises ModelError."""
    workshop = Workshop(cache)
    inspection = recipe.teacher.inspect(data)
    for line, subject in zip_longest(inspection.lines, recipe.teacher.subjects(data)):
        yield Tried(f"teacher: {line}", tuple(examine(subject, workshop)) if subject else ())
    if isinstance(recipe.student, Saved) and not recipe.alone:
        weights = inspection.weights
        limits = (None, MAX_UNKNOWN) if weights is None else (weights.max_tokens, weights.max_unknown)
        subject = recipe.student.subject(inspection.data, *limits)
        yield Tried(f"student: {subject.name} is used as it is", tuple(examine(subject, workshop)))


def of_teacher(inspection: Inspection, known: Known) -> Known:
    """Return what is known with the teacher, who numbers the labels."""
    known, weights = replace(known, data=inspection.data, task=inspection.data.task), inspection.weights
    if weights is None:
        return replace(known, only_answers=True)
    return replace(
        known,
        teacher=weights.config,
        source=weights.source,
        fine_tuned=weights.must_train,
        longest=weights.longest,
    )


def of_student(recipe: Recipe, known: Known, found: Found) -> Known:
    """Return what is known with the student's configuration, where its settings allow one that can answer."""
    told = recipe.known_to_parts(known)
    if any(all_faults(recipe.student, told)):
        return known
    student = recipe.student.config(recipe.student.built_from(known))
    faults = [fault.under("student") for fault in all_faults(recipe.student, replace(told, student=student))]
    found.add(faults)
    return known if faults else replace(known, student=student)


class Found:
    """The faults that a check has found, each once."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: list[Fault] = []
        self.add(faults)

    def add(self, faults: Iterable[Fault]) -> None:
        """Note those that are new: what was wrong when less was known still is."""
        for fault in faults:
            if fault not in self.faults:
                self.faults.append(fault)

    def any_of(self, *settings: str) -> bool:
        """Return whether a fault is of one of these settings, or of one below it."""
        return any(fault.setting.startswith(settings) for fault in self.faults)

    @contextmanager
    def attempt(self, setting: str) -> Iterator[None]:
        """Note an error that the user can fix as one of ``setting``, and go on."""
        try:
            yield
        except RecipeError as error:
            self.add(error.faults)
        except CompressError as error:
            of_rows = isinstance(error, DataError) and setting == "teacher"  # a label that no model knows
            self.add([Fault("data" if of_rows else setting, None, str(error).rstrip("."))])
