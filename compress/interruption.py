"""Ctrl-C and SIGTERM: training stops after the current step, everything else at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; the program ends as it does on Ctrl-C, with another exit code."""


@dataclass
class Interruption:
    """The first signal that arrived while signals were held back; None while there was none."""

    number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM, for a time.

    Does nothing outside the main thread, which alone may set handlers, and where SIGTERM is ignored.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.getsignal(signal.SIGTERM)
    if not _in_main_thread() or before in {signal.SIG_IGN, None}:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def held_back() -> Iterator[Interruption]:
    """Note the first Ctrl-C or SIGTERM rather than act on it; act on it at the end, and on a second one at once.

    Acting on a signal means what it meant before: the handlers that were there are put back first. The body is
    to look at the `Interruption` and end soon once it is true; KeyboardInterrupt follows even if the handler that was
    there returns. Outside the main thread nothing is held back.
    """
    interruption = Interruption()
    if not _in_main_thread():
        yield interruption
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in {signal.SIG_IGN, None}}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        if interruption:
            put_back()
            signal.raise_signal(number)
        else:
            interruption.number = number

    for number in before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        put_back()
    if interruption.number is not None:
        signal.raise_signal(interruption.number)
        raise KeyboardInterrupt


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
