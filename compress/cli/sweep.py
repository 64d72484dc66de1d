"""A sweep: every combination checked before the first is started, each in a folder of its own."""

from __future__ import annotations

import re
import traceback
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from compress.cli import compose
from compress.cli.composing import sweeps
from compress.errors import CompressError, Fault, RecipeError
from compress.run.names import reserve
from compress.run.place import name_faults, place_faults
from compress.run.recipe import Recipe
from compress.settings import plain

LONGEST = 80  # bytes of a job's label


@dataclass(frozen=True)
class Outcome:
    """What became of one job: its folder, and why it stopped, if it did."""

    label: str
    folder: Path | None  # None where it stopped before it had one
    error: str = ""


def sweep(overrides: Sequence[str], ended: list[Outcome] | None = None) -> list[Outcome]:
    """Run every combination of the words' values. Raises RecipeError, before any work, with the faults of all.

    Jobs that run in this process are noted in ``ended`` as they end: what there is when the sweep is interrupted.
    """
    first, *_ = check_all(sweeps.combinations(overrides))
    folder = reserve((first.folder.parent if first.output and first.folder else Path("runs")) / ".sweeps")
    outcomes: list[Outcome] = sweeps.launch(overrides, folder, partial(_run, [] if ended is None else ended))
    return outcomes


def check_all(jobs: Sequence[Sequence[str]]) -> list[Recipe]:
    """Return recipes of jobs, one for each data set and models; raises RecipeError with every fault of any job."""
    faults: list[Fault] = []
    recipes: dict[str, Recipe] = {}  # by what decides about data and models, which are slow to look at
    for job in jobs:
        try:
            own = [word for word in job if any(word not in other for other in jobs)]
            recipe, _ = named(compose.compose(job), own)
            found = [*name_faults(recipe)]
            faults += found or place_faults(recipe)
        except RecipeError as error:
            faults += error.faults
        else:
            models = (recipe.teacher, recipe.student, recipe.prepare, recipe.distill)
            looked_at = (recipe.data, recipe.task, recipe.seed, models)
            recipes.setdefault(repr(plain(looked_at)), recipe)
    if not faults:
        for recipe in recipes.values():
            faults += compose.faults_of(recipe)
    if faults:
        raise RecipeError({str(fault): fault for fault in faults}.values())
    return list(recipes.values())


def named(recipe: Recipe, words: Sequence[str]) -> tuple[Recipe, str]:
    """Return a job's recipe with a folder of its own, and the job's label, made of the words that it alone has.

    A recipe without a name and a folder keeps none: its folder is numbered, with the label behind the number.
    """
    label = "-".join(map(_label, words)) or "job"
    if len(label.encode()) > LONGEST:
        short = label.encode()[: LONGEST - 9].decode(errors="ignore")  # of a letter cut in two, nothing is left
        label = f"{short}-{zlib.crc32(label.encode()):08x}"
    if recipe.output:
        return replace(recipe, output=str(Path(recipe.output) / label)), label
    return replace(recipe, name=f"{recipe.name}-{label}") if recipe.name else recipe, label


def _label(word: str) -> str:
    setting, _, value = word.partition("=")
    bare = re.sub(r"[\[\]'\" ]", "", value) or "none"
    safe = re.sub(r"[^\w.,+-]", "_", bare)
    if safe != bare:
        safe += f"_{zlib.crc32(value.encode()):08x}"
    return f"{'.'.join(re.split('[./]', setting)[-2:])}={safe}"


def _run(ended: list[Outcome], words: list[str], own: list[str]) -> Outcome:
    ended.append(outcome := _outcome(words, own))
    return outcome


def _outcome(words: list[str], own: list[str]) -> Outcome:
    label, folder = " ".join(own), Path()
    try:
        recipe, label = named(compose.compose(words), own)
        folder = recipe.folder or folder
        run = recipe.run() if recipe.folder else recipe.run(label=label)
    except CompressError as error:
        return Outcome(label, folder, str(error))
    except Exception as error:  # a fault of ours ends its job, not the others
        traceback.print_exc()
        return Outcome(label, folder, f"{type(error).__name__}: {error}")
    return Outcome(label, recipe.folder or run.folder)
