"""What the commands that run a recipe have in common."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compress.cli.output import shown
from compress.telling import say

if TYPE_CHECKING:
    from compress.report.schema import Report
    from compress.run.recipe import Recipe

DRY = ("--cfg", "--dry-run")  # options that run nothing


def show(recipe: Recipe) -> int:
    """Check a recipe and print it, with what is known of its models."""
    from compress.run.check import check, told
    from compress.run.recipe_yaml import to_yaml

    checked = check(recipe)
    for line in told(checked.data):
        say(line)

    def print_it() -> None:
        print(to_yaml(recipe), end="")
        for tried in checked.models:
            print(f"# {tried}")

    shown(print_it, recipe=to_yaml(recipe), models=[str(tried) for tried in checked.models])
    return 0


NOTHING_PASSES = 3  # exit code of an export of which every artifact was rejected


def carry_out(recipe: Recipe, words: Sequence[str]) -> int:
    """Run a recipe, print its report, and return the exit code."""
    run = recipe.run(command=shlex.join(["compress", *words]))
    shown_report(run.report, run.folder)
    return NOTHING_PASSES if words[0] == "export" and run.report.nothing_passes else 0


def shown_report(report: Report, folder: Path) -> None:
    """Tell what a run came to: its report, and where that is."""
    from rich.console import Console

    from compress.report import words
    from compress.report.table import print_report

    page = folder / "report.html"

    def print_it() -> None:
        print_report(report, Console())
        print(f"report: {page}")

    shown(
        print_it, folder=str(folder), report=str(folder / "report.json"), page=str(page),
        decision=None if report.shipping is None else report.shipping.decision,
        verdict="".join(vars(words.verdict(report)).values()), recommended=report.recommended,
    )  # fmt: skip
