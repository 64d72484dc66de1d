"""The command line: which command is meant, and which exit code follows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module

from compress import __version__
from compress.cli.commands import NAMES
from compress.cli.output import refused
from compress.cli.parser import way_of
from compress.cli.running import DRY
from compress.errors import CompressError
from compress.files import storage_error
from compress.interruption import Terminated, terminable
from compress.processes import Launched, SeveralProcessesError, is_first, launched, refuse_several
from compress.starting import STOPPED, importing
from compress.telling import Crashed, Interrupted, say, tell

OVERVIEW = """\
usage: compress COMMAND …

Make BERT-sized models small and fast: distil, prune, quantize, export, measure, report.

commands:
  run         run a recipe, from data to report; without arguments, the quickstart
  plan        say what a run would do: rows, steps, minutes, disk
  search      name a speed or an accuracy, and get the student that has it
  export      quantize and export a saved student, or any saved classifier, with a report
  answer      write what a teacher answers to every row, for runs without it
  compare     compare finished runs
  bench       measure the latency of models and artifacts
  predict     predict labels or scores for texts
  recipes     list the recipes
  cache       list, prune or empty the cache of finished work
  completion  print a completion script for your shell

Run `compress COMMAND --help` for details; `compress run --help` lists every setting.
`python -m compress` is the same program, in case `compress` runs the Unix file compressor, compress(1).

examples:
  compress run recipe=quickstart
  compress run recipe=quickstart data=files data.train=my/train.tsv teacher.model=my/teacher
  compress run -m recipe=quickstart prune.heads.ratio=0.1,0.3,0.5
  compress compare runs/quickstart/*
  compress export runs/quickstart/latest 'quantize=[static]' 'export=[onnx]'
  compress predict runs/quickstart/latest "a text"
"""


def _command(name: str, argv: Sequence[str]) -> int:
    """Run a command; its module is imported now, so that the others cost nothing."""
    with importing():
        command = import_module(f"compress.cli.commands.{name}")
    code: int = command.main(argv)
    return code


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {name: partial(_command, name) for name in NAMES}
"""The commands by name; each is a module of `compress.cli.commands`."""

DIVIDED = ("run",)  # commands that several processes carry out together
TELLING = ("run", "plan", "search", "export", "answer", "compare", "bench")
"""Commands that work for long, and tell what they do as `way_of` finds."""

LIGHT = ("recipes", "completion")  # commands that any number of processes may run at once


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0; 2 for what the user can fix; 3 where every artifact of an export was rejected, or no trial of a search met its
    target; 130 after Ctrl-C, 143 after
    SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] and words[0] in TELLING and not {"-h", "--help"} & set(words):
        with way_of(words):
            return _guarded(words)
    return _guarded(words)


def _guarded(words: list[str]) -> int:
    """Run a command line; tell what ends it early."""
    try:
        with terminable():
            return _main(words)
    except SeveralProcessesError as error:
        if is_first():
            return refused(str(error))
        time.sleep(1)  # a launcher ends all its processes when one has ended; the first has to say why
        return 2
    except CompressError as error:
        return refused(error)
    except KeyboardInterrupt as stop:
        code = 143 if isinstance(stop, Terminated) else 130
        tell(Interrupted(message=_stopped(words, stop), code=code))
        return code
    except BrokenPipeError:  # as in `compress recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError, RuntimeError) as error:
        if (failure := storage_error(error)) is None:
            _tell_crash(error)
            raise
        return refused(str(failure))
    except Exception as error:
        _tell_crash(error)
        raise


def _tell_crash(error: Exception) -> None:
    tell(Crashed(message=f"{type(error).__name__}: {error}", code=1))


def _stopped(words: Sequence[str], stop: KeyboardInterrupt) -> str:
    """Return the line that tells of an interruption; a sweep says in it how far it came."""
    works = words[:1] in (["run"], ["search"], ["export"]) and not {*DRY, "-h", "--help"} & set(words)
    resumes = " Run the same command again; it resumes." if works else ""
    reason = f": {stop}" if str(stop) else ""
    return f"{STOPPED.rstrip('.')}{reason}.{resumes}"


def _main(argv: list[str]) -> int:
    if argv[:1] == ["--version"]:
        print(f"compress {__version__}")
        return 0
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(OVERVIEW, end="")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        meant = f"run {name}" if "=" in name else close[0] if close else None
        hint = f"Did you mean compress {meant}?" if meant else f"Known: {', '.join(COMMANDS)}."
        return refused(f"Unknown command {name}. {hint}")
    if name in DIVIDED and not set(rest) & {"-h", "--help", "-m", "--multirun", *DRY} and (mine := launched()):
        return _together(mine, partial(COMMANDS[name], rest))
    if name not in LIGHT and not set(rest) & {"-h", "--help"}:
        refuse_several()
    return COMMANDS[name](rest)


def _together(mine: Launched, work: Callable[[], int]) -> int:
    """Do the work in the first of several processes while the others help; return the exit code of this one."""
    with importing():
        from compress.team import join
        from compress.train.helpers import serve

    team = join(mine)
    if not team.leads:
        return serve(team)
    say(f"{team.size} processes divide the steps of training")
    try:
        return work()
    finally:
        team.end()
