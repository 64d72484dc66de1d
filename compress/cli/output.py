"""What commands print: messages to the standard error, tables to the standard output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from compress.errors import CompressError, RecipeError
from compress.telling import Failed, Result, tell

LEAST, GAP = 24, 2  # characters of a table's first column, where it is longer, and between columns


def refused(error: str | CompressError) -> int:
    """Tell what the user can fix, and return the exit code of that."""
    faults = error.faults if isinstance(error, RecipeError) else ()
    parts = [{name: str(part) for name, part in vars(fault).items() if part not in (None, "")} for fault in faults]
    tell(Failed(message=str(error), code=2, faults=parts))
    return 2


def shown(print_it: Callable[[], None], **values: Any) -> None:
    """Tell the result of a command: its ``values``, JSON-ready, which ``print_it`` prints for a person."""
    tell(Result(values=values, show=print_it))


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print dictionaries as a table, lists of words in one cell; other parts of parts are left to --json.

    In a terminal too narrow for `LEAST` characters of the first column beside the others, each of its values is on a
    line of its own, above the rows that it belongs to.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    if not rows:
        return
    console = Console()
    names = [key for key, value in rows[0].items() if _fits(value)]
    lines = [[_cell(row[key]) for key in names] for row in rows]
    first, *others = (max(map(cell_len, column)) for column in zip(names, *lines, strict=True))
    if console.width - sum(width + GAP for width in others) >= min(first, LEAST):
        console.print(_grid(names, lines, {names[0]}, GAP))
        return
    words = {name for name in names[1:] if any(isinstance(row[name], str) for row in rows)}
    for value, group in groupby(lines, key=itemgetter(0)):
        console.print(Text(value, overflow="fold"))
        console.print(_grid(names[1:], [line[1:] for line in group], words, 1))


def _fits(value: object) -> bool:
    """Return whether a value fits into a cell."""
    words = isinstance(value, list) and all(isinstance(part, str) for part in value)
    return words or not isinstance(value, dict | list)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _grid(names: Sequence[str], lines: Sequence[Sequence[str]], wrapped: Collection[str], gap: int) -> Any:
    """Return lines below the names of their columns, of which only ``wrapped`` ones give way."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, padding=(0, gap, 0, 0))
    for name in names:
        grid.add_column(name, overflow="fold", no_wrap=name not in wrapped)
    for line in lines:
        grid.add_row(*map(Text, line))
    return grid
