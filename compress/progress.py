"""One look for every progress bar: on a terminal it moves, in a log it speaks now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(rows: Iterable[Any] | None = None, *, title: str | None, unit: str, **settings: Any) -> Any:
    """Return a tqdm bar with the time left, gone when it is full; without a title there is none."""
    interval = 1.0 if sys.stderr.isatty() else 20.0
    return tqdm(
        rows, desc=title, unit=unit, leave=False, mininterval=interval, maxinterval=10 * interval,
        disable=title is None, **settings,
    )  # fmt: skip


def say(text: str) -> None:
    """Print a line on the standard error, above a progress bar where there is one."""
    tqdm.write(text, file=sys.stderr)
