"""What the commands that run a recipe have in common."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress.run.recipe import Recipe

DRY = ("--cfg", "--dry-run")  # options that run nothing


def show(recipe: Recipe) -> int:
    """Check a recipe and print it, with what is known of its models."""
    from compress.run.check import check, told
    from compress.run.recipe_yaml import to_yaml

    checked = check(recipe)
    for line in told(checked.data):
        print(line, file=sys.stderr)
    print(to_yaml(recipe), end="")
    for tried in checked.models:
        print(f"# {tried}")
    return 0


NOTHING_PASSES = 3  # exit code of an export of which every artifact was rejected


def carry_out(recipe: Recipe, words: Sequence[str]) -> int:
    """Run a recipe, print its report, and return the exit code."""
    from rich.console import Console

    from compress.report.table import print_report

    run = recipe.run(command=shlex.join(["compress", *words]))
    print_report(run.report, Console())
    print(f"report: {run.folder / 'report.html'}")
    return NOTHING_PASSES if words[0] == "export" and run.report.nothing_passes else 0
