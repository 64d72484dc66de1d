"""``compress export``: the recipe that takes a saved student as it is and makes artifacts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compress.benchmark.depths import Depths
from compress.cli import compose
from compress.cli.words import quoted
from compress.errors import Fault, ModelError, RecipeError
from compress.models.loading import load_config
from compress.models.positions import longest_row
from compress.run.names import as_lasting, given_path
from compress.run.recipe import Recipe
from compress.runs import run_in
from compress.student.saved import Saved
from compress.teachers.model import FineTune, Teacher

TAKEN = ("uses", "data", "task", "quantize", "export", "max_drop", "benchmark", "seed", "name", "output", "cache")
"""What can be chosen and set; the rest describes how a student is made, and here it exists already."""


def recipe_for(model: str, words: Sequence[str]) -> Recipe:
    """Return the recipe for a run's student, or for a saved classifier, and the ``words`` of a command line.

    Raises RecipeError for words of other parts than `TAKEN` and for what `compress.cli.compose.compose` refuses,
    ModelError where ``model`` is neither a run nor a classifier.
    """
    faults = [
        Fault(word.partition("=")[0], None, "describes how a student is made, and export uses a finished one", _INSTEAD)
        for word in words
        if word.lstrip("+~").partition("=")[0].partition(".")[0].partition("/")[0] not in TAKEN
    ]
    if faults:
        raise RecipeError(faults)
    path = given_path(model)
    if sentence := run_in(path):
        raise ModelError(f"{path}: is not a run. {sentence}")
    if (path / "report.json").is_file() or (path / "recipe.yaml").is_file():
        return _of_run(path, words)
    return _of_classifier(model, words)


_INSTEAD = f"Export accepts {', '.join(TAKEN)}; use `compress run` for the rest."


def _of_run(run: Path, words: Sequence[str]) -> Recipe:
    """Return the recipe for the student of a run, with the run's data, settings and teacher."""
    run = as_lasting(run)
    teacher, student = run / "stages" / "00-teacher", run / "student"
    _check_is_there(run, run / "recipe.yaml", student / "config.json")
    recipe = compose.compose([f"recipe={quoted(str(run / 'recipe.yaml'))}", *words], trusted=False)
    if recipe.alone:  # a run of export, of a classifier without a teacher: it is its own
        teacher = student
    _check_is_there(run, teacher / "config.json")
    if recipe.output and as_lasting(Path(recipe.output).expanduser()) == run:
        raise RecipeError(
            [Fault("output", recipe.output, "is the run itself, which export must not change", "Name another folder.")]
        )
    assert isinstance(recipe.teacher, Teacher)  # its folder holds a model
    plain = Teacher()
    return replace(
        recipe,
        recipe="export",
        data=replace(recipe.data, labels={}),  # the run's teacher and student bear the data's words already
        teacher=replace(
            recipe.teacher, model=str(teacher), fine_tune=FineTune.never, members=[], copies=1,
            combine=plain.combine, weights=None, chosen=1,
        ),
        augment={},
        student=Saved(model=str(student)),
        prepare={},
        distill=replace(recipe.distill, epochs=0, generations=1),
        prune={},
        benchmark=replace(recipe.benchmark, labels_only=False, depths=Depths.none, depths_twin=False),
    )  # fmt: skip


def _check_is_there(run: Path, *files: Path) -> None:
    """Raise ModelError where a run lacks one of its files."""
    for needed in files:
        if not needed.is_file():
            raise ModelError(
                f"{run}: is not a finished run: {needed.relative_to(run)} is missing. Name its student's folder."
            )


def _of_classifier(model: str, words: Sequence[str]) -> Recipe:
    """Return the recipe for a classifier without a teacher, its rows as long as it takes them."""
    if not any(word.startswith(("data=", "data.")) for word in words):
        rule = "is needed: artifacts are calibrated and measured on rows"
        raise RecipeError([Fault("data", None, rule, "For example data=files data.train=my/train.tsv.")])
    path = Path(model).expanduser()
    source = str(as_lasting(path)) if path.exists() else model
    most = longest_row(load_config(source))
    named = quoted(source)
    return compose.compose(
        ["recipe=export", f"teacher.model={named}", f"student.model={named}", f"teacher.max_tokens={most}", *words]
    )
