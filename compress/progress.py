"""One look for every progress bar, shown as the process tells things."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

from compress.telling import Level, Progress, teller


class ToldBar(tqdm):  # type: ignore[type-arg]
    """A tqdm bar, gone when it is full; where it is given ``tell``, it tells how far it has come instead."""

    tell: Callable[[Progress], None] | None

    def __init__(self, *arguments: Any, tell: Callable[[Progress], None] | None = None, **settings: Any) -> None:
        self.tell = tell
        super().__init__(*arguments, **settings | ({"file": _Nowhere()} if tell else {}))

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show how far it has come."""
        if self.tell is None:
            super().display(msg, pos)
        elif msg is None:  # tqdm passes "" to wipe a bar
            state = self.format_dict
            self.tell(
                Progress(
                    title=str(self.desc).removesuffix(": "), unit=self.unit, done=self.n, total=self.total,
                    seconds=state["elapsed"], state=state["postfix"] or "",
                )
            )  # fmt: skip


class _Nowhere(io.TextIOBase):
    """Keeps nothing of what is written."""

    def write(self, text: str, /) -> int:
        return len(text)


def progress(rows: Iterable[Any] | None = None, *, title: str | None, unit: str, **settings: Any) -> Any:
    """Return a bar with the time left; without a title there is none."""
    hidden = title is None or teller().level < Level.usual
    return ToldBar(rows, desc=title, unit=unit, leave=False, disable=hidden, **teller().bars(), **settings)
