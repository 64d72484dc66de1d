"""``compress recipes``: list the recipes."""

from __future__ import annotations

from collections.abc import Sequence

from compress.cli import recipe_paths
from compress.cli.parser import Parser


def parser() -> Parser:
    """Return the options."""
    return Parser("recipes", "", "List the recipes: those that come with the program and those in ./recipes.")


def main(argv: Sequence[str]) -> int:
    """``compress recipes``: list the recipes."""
    parser().parse_args(argv)
    found = recipe_paths.known()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        print(f"{name:<{width}}  {recipe_paths.headline(path)}  [{recipe_paths.shown(path)}]")
    print("\nRun one: compress run recipe=NAME. See all of its settings: compress run recipe=NAME --cfg.")
    return 0
