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


def carry_out(recipe: Recipe, words: Sequence[str]) -> int:
    """Run a recipe and print its report."""
    from rich.console import Console

    from compress.report.table import print_report

    run = recipe.run(command=shlex.join(["compress", *words]))
    print_report(run.report, Console())
    print(f"report: {run.folder / 'report.html'}")
    return 0
