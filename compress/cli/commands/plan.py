"""``compress plan``: what a run would do, before it does anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress.cli.output import shown, table
from compress.cli.parser import WORDS, Parser
from compress.starting import importing
from compress.telling import say

if TYPE_CHECKING:
    from compress.run.recipe import Recipe

PLAN = """\
Words are those of `compress run`. Every training is listed with its rows, tokens and steps, as the run would have
them, and with the minutes that it would take: a few of its real batches are trained now, with random weights. Nothing
is written, and finished work in the cache is not subtracted. `compress run … --plan` is the same.

examples:
  compress plan recipe=quickstart
  compress plan recipe=tinybert data=files data.train=my/train.tsv teacher.model=my/teacher
"""


def parser() -> Parser:
    """Return the options."""
    options = Parser("plan", "[WORD …]", "Say what a run would do: rows, steps, minutes, disk.", PLAN)
    options.add_completed(WORDS, "words", nargs="*", metavar="WORD", help="choice=NAME or setting=VALUE")
    options.add_telling()
    return options


def main(argv: Sequence[str]) -> int:
    """``compress plan``: check a recipe and print what it would do."""
    options = parser().parse_intermixed_args(argv)

    with importing():
        from compress.cli import compose

    return show_plan(compose.compose(options.words))


def show_plan(recipe: Recipe) -> int:
    """Check a recipe and print what it would do."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from compress.run.check import check, told
    from compress.run.plan import plan_of
    from compress.run.plan_words import rows_of, shapes_of, totals_of
    from compress.run.rehearsal import costs

    with TemporaryDirectory() as aside:
        checked = check(recipe, cache=Path(aside))
    for line in (*told(checked.data), *map(str, checked.models)):
        say(line)
    plan = plan_of(recipe, checked)
    say("trying each training on a few batches")
    known = recipe, plan, costs(plan)
    shapes, rows, totals = list(shapes_of(plan)), rows_of(*known), list(totals_of(*known))

    def print_it() -> None:
        for line in shapes:
            print(line)
        table(rows)
        for line in totals:
            print(line)

    shown(print_it, shapes=shapes, trainings=rows, totals=totals)
    return 0
