"""What a command tells while it works: events, and the ways in which they are shown.

Every message to a person or a program goes through `tell`, `say`, `warn`, `detail` or `compress.progress`, and
is shown by the one `Teller` of the process: as text in a terminal, or as a line of JSON for each event. The fields of
an event are the fields of its line.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from typing import Any, ClassVar, Protocol, TextIO

from compress.starting import STOPPED, farewells


class Level(IntEnum):
    """How much is told: each level tells what those before it tell, too."""

    quiet = 0  # warnings, errors and results
    usual = 1  # stages and progress as well
    detailed = 2  # and what each step did


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that is told."""

    name: ClassVar[str]  # the field "event" of its line of JSON
    level: ClassVar[Level] = Level.usual  # the least at which it is told
    style: ClassVar[str] = ""  # of its text in a terminal

    def text(self) -> str:
        """Return the line that a terminal shows; none where it is empty."""
        return ""

    def fields(self) -> dict[str, Any]:
        """Return the other fields of its line of JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class StageBegan(Event):
    """A stage, or a part of the work like one, has begun."""

    name = "stage_began"
    style = "bold"
    stage: str

    def text(self) -> str:
        """Return the name of the stage."""
        return self.stage


@dataclass(frozen=True, kw_only=True)
class StageEnded(Event):
    """A stage has ended."""

    name = "stage_ended"
    style = "dim"
    stage: str
    reused: bool  # it was taken from the cache
    usage: Mapping[str, float]  # what it took, when it was computed; see `compress.usage.Usage`
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Return its notes, and how long it took."""
        how = "taken from the cache" if self.reused else f"{self.usage.get('seconds', 0):.0f} s"
        return "".join(["  ", *(f"{note}; " for note in self.notes), how])


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """How far some work has come. A terminal shows a bar instead."""

    name = "progress"
    title: str
    unit: str  # of ``done`` and ``total``: "step", "row"
    done: float
    total: float | None  # None where it is not known
    seconds: float  # since the work began
    state: str = ""  # what else there is to see, as "loss=0.532"


@dataclass(frozen=True, kw_only=True)
class Remark(Event):
    """Something worth knowing, in words."""

    name = "remark"
    style = "dim"
    message: str

    def text(self) -> str:
        """Return the message."""
        return self.message


@dataclass(frozen=True, kw_only=True)
class Detail(Remark):
    """Something that only few need to know."""

    name = "detail"
    level = Level.detailed


@dataclass(frozen=True, kw_only=True)
class Warned(Remark):
    """Something that is not as it should be; the work goes on."""

    name = "warning"
    level = Level.quiet
    style = "yellow"


@dataclass(frozen=True, kw_only=True)
class Result(Event):
    """What a command came to; ``show`` prints it for a person, on standard output."""

    name = "result"
    level = Level.quiet
    values: Mapping[str, Any]  # JSON-ready: the fields of its line
    show: Callable[[], None] = field(compare=False)

    def fields(self) -> dict[str, Any]:
        """Return the values."""
        return dict(self.values)


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """Why a command ends, or a job of a sweep, with the exit code that follows."""

    name = "fault"
    level = Level.quiet
    message: str
    code: int
    faults: Sequence[Mapping[str, str]] = ()  # of settings, one by one: setting, value, rule, remedy

    def text(self) -> str:
        """Return the message."""
        return self.message


@dataclass(frozen=True, kw_only=True)
class Interrupted(Failed):
    """Ctrl-C or SIGTERM ended a command."""

    def text(self) -> str:
        """Return the message, behind the ``^C`` that a terminal shows."""
        return f"\n{self.message}" if sys.stderr.isatty() else self.message


@dataclass(frozen=True, kw_only=True)
class Crashed(Failed):
    """An error of this program ends the command. In a terminal, Python prints the traceback."""

    def text(self) -> str:
        """Return nothing."""
        return ""


class Teller(Protocol):
    """A way to show events."""

    level: Level

    def show(self, event: Event) -> None:
        """Show an event whose level is not above this teller's."""
        ...

    def bars(self) -> Mapping[str, Any]:
        """Return how progress is shown, as `compress.progress.ToldBar` takes it."""
        ...


class Terminal:
    """Text for people: messages and bars on standard error, or in ``file``; results on standard output."""

    def __init__(self, level: Level = Level.usual, file: TextIO | None = None) -> None:
        self.level, self.file = level, file

    def show(self, event: Event) -> None:
        """Print an event."""
        if isinstance(event, Result):
            event.show()
        elif text := visible(event.text()):
            file = self.file or sys.stderr
            with _above_bars(file):
                if file.isatty() and event.style:
                    _in_style(file, text, event.style)
                else:
                    print(text, file=file)

    def bars(self) -> Mapping[str, Any]:
        """Bars move in a terminal, and speak now and then in a log."""
        file = self.file or sys.stderr
        interval = 1.0 if file.isatty() else 20.0
        return {"file": file, "mininterval": interval, "maxinterval": 10 * interval}


class Lines:
    """One line of JSON an event, for programs."""

    INTERVAL = 2.0  # seconds between lines of one bar

    def __init__(self, file: TextIO, level: Level = Level.usual) -> None:
        self.level, self.file = level, file
        self._lock, self._read = threading.Lock(), True

    def show(self, event: Event) -> None:
        """Write an event. Where nobody reads any more, the work goes on."""
        line = _line(event)
        with self._lock:
            try:
                if self._read:
                    self.file.write(line)
                    self.file.flush()
            except BrokenPipeError:
                self._read = False

    def bars(self) -> Mapping[str, Any]:
        """Bars become events."""
        return {"tell": tell, "mininterval": self.INTERVAL, "maxinterval": 10 * self.INTERVAL}


_tellers: list[Teller] = [Terminal()]


def teller() -> Teller:
    """Return how this process shows events now."""
    return _tellers[-1]


@contextmanager
def telling(way: Teller) -> Iterator[None]:
    """Show events in another way, for a time."""
    _tellers.append(way)
    try:
        yield
    finally:
        _tellers.remove(way)


def tell(event: Event) -> None:
    """Show an event."""
    if event.level <= teller().level:
        teller().show(event)


def say(text: str) -> None:
    """Tell something worth knowing."""
    tell(Remark(message=text))


def warn(text: str) -> None:
    """Tell something that is not as it should be."""
    tell(Warned(message=text))


def detail(text: str) -> None:
    """Tell something that only few need to know."""
    tell(Detail(message=text))


@contextmanager
def lines(level: Level) -> Iterator[None]:
    """Show events as lines of JSON on standard output, for a time; all else written there goes to standard error."""
    out = sys.stdout
    try:
        real = out.fileno() == 1
    except (OSError, ValueError, AttributeError):  # a notebook's, or a test's
        real = False
    if not real:
        with redirect_stdout(sys.stderr), telling(Lines(out, level)):
            yield
        return
    out.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as own:
        os.dup2(2, 1)  # what libraries and child processes print
        told = Interrupted(message=STOPPED, code=0)
        farewells.append(lambda number: _write_at_once(own.fileno(), replace(told, code=128 + number)))
        try:
            with redirect_stdout(sys.stderr), telling(Lines(own, level)):
                yield
        finally:
            farewells.pop()
            sys.stderr.flush()
            os.dup2(own.fileno(), 1)


def _write_at_once(file: int, event: Event) -> None:
    """Write the line of an event from a signal's handler."""
    os.write(file, _line(event).encode())


def _line(event: Event) -> str:
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    return json.dumps({"event": event.name, "time": now, **event.fields()}, default=str) + "\n"


def visible(text: str) -> str:
    """Return ``text`` with control characters written out, which a terminal would obey."""
    return re.sub("[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda letter: f"\\x{ord(letter[0]):02x}", text)


def _above_bars(file: TextIO) -> Any:
    """Return a context in which bars make room for a line."""
    tqdm = sys.modules.get("tqdm")
    return nullcontext() if tqdm is None else tqdm.tqdm.external_write_mode(file=file)


def _in_style(file: TextIO, text: str, style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(file=file).print(Text(text, style=style), soft_wrap=True)
