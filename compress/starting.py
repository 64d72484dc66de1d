"""The program's first moments: modules are imported, nothing is under way yet. Imports little itself, being first."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = "Stopped."

farewells: list[Callable[[int], None]] = []
"""Called with the number of the signal where it ends the process at once; each may only write to a file descriptor."""


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """End the process with one line on Ctrl-C or SIGTERM, for a time.

    KeyboardInterrupt would not do: an import that it leaves half done may end in any other error, or in none.
    Signals that are ignored stay ignored; outside the main thread nothing is changed.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        newline = "\n" if sys.stderr.isatty() else ""
        os.write(2, f"{newline}{STOPPED}\n".encode())
        for farewell in farewells:
            farewell(number)
        os._exit(128 + number)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in {signal.SIG_IGN, None}:
                signal.signal(number, end)
                before[number] = handler
    except ValueError:  # only the main thread may set handlers
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def importing() -> Iterator[None]:
    """Import modules: a signal ends the process at once, and nothing looks for garbage, of which imports leave little.

    Searching the many objects of PyTorch and transformers again and again takes a fifth of their import, and later a
    third of a second before every training. Where modules were imported, later searches leave out all that there is.
    """
    searched, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        with stopping_at_once():
            yield
    finally:
        if len(sys.modules) > known:  # otherwise it may be garbage of earlier work, which nothing would ever free
            gc.freeze()
        if searched:
            gc.enable()
