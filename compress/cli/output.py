"""What commands print: messages to the standard error, tables to the standard output."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any


def refused(message: str) -> int:
    """Print what the user can fix, and return the exit code of that."""
    print(visible(message), file=sys.stderr)
    return 2


def note(text: str) -> None:
    """Print a remark to the standard error."""
    print(visible(text), file=sys.stderr)


def visible(text: str) -> str:
    """Return ``text`` with control characters written out, which a terminal would obey."""
    return re.sub("[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda letter: f"\\x{ord(letter[0]):02x}", text)


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print dictionaries as a table; parts of parts are left to --json."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = [key for key, value in rows[0].items() if not isinstance(value, dict | list)] if rows else []
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for number, key in enumerate(columns):
        grid.add_column(key, overflow="fold", no_wrap=number > 0)
    for row in rows:
        grid.add_row(*(Text(f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key])) for key in columns))
    Console().print(grid)
