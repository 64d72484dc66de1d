"""Options of a command; errors in them are reported in one line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from difflib import get_close_matches
from typing import Any, NoReturn

from compress.cli.output import refused
from compress.telling import Level, Terminal, lines, telling

FOLDERS = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}
WORDS = {"bash": "_compress_words", "zsh": "_compress_words"}
"""How shells complete an argument: a folder, or words of `compress.cli.commands.completion`."""

MOST_NUMBERS, LARGEST = 64, 1_000_000  # of --batch and --tokens


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, with the nearest option."""

    def __init__(self, command: str, usage: str, description: str, more: str = "") -> None:
        super().__init__(
            prog=f"compress {command}",
            usage=f"compress {command} {usage}".rstrip(),
            description=description,
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_completed(self, how: Mapping[str, str], name: str, **options: Any) -> None:
        """Add an argument that shells complete as `FOLDERS` or `WORDS` says."""
        argument: Any = self.add_argument(name, **options)
        argument.complete = how  # read by shtab

    def add_telling(self) -> None:
        """Add what all commands that work for long have in common: how much they tell, and in which form.

        `way_of` reads these options, before any other.
        """
        level = self.add_mutually_exclusive_group()
        level.add_argument("-q", "--quiet", action="store_true", help="print only warnings, errors and the result")
        level.add_argument("-v", "--verbose", action="store_true", help="print what each step did as well")
        self.add_argument("--json", action="store_true", help="print a line of JSON for every event, and nothing else")

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit with code 2."""
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0].partition("=")[0]
        if unknown != message.split(" ", maxsplit=1)[0]:
            close = get_close_matches(unknown, self._option_string_actions, n=1)
            message = f"unknown option {unknown}. " + (f"Did you mean {close[0]}?" if close else "See --help.")
        sys.exit(refused(f"{self.prog}: {message}"))


def way_of(words: Sequence[str]) -> AbstractContextManager[None]:
    """Return the context in which a command with these words tells things as its `Parser.add_telling` options say."""
    letters = {letter for word in words if re.fullmatch("-[a-z]+", word) for letter in word}
    level = Level.usual
    if "--quiet" in words or "q" in letters:
        level = Level.quiet
    elif "--verbose" in words or "v" in letters:
        level = Level.detailed
    return lines(level) if "--json" in words else telling(Terminal(level))


def numbers(text: str) -> list[int]:
    """Return whole numbers between commas; raises ArgumentTypeError."""
    parts = text.split(",")
    if len(parts) > MOST_NUMBERS:
        raise argparse.ArgumentTypeError(f"{len(parts)} numbers are more than the {MOST_NUMBERS} that fit a table")
    return [number(part) for part in parts]


def number(text: str) -> int:
    """Return a whole number above 0; raises ArgumentTypeError."""
    if not text.isdecimal() or len(text) > len(str(LARGEST)) or not 1 <= int(text) <= LARGEST:
        rule = f"must be whole numbers from 1 to {LARGEST:,}, as 1,8,32"
        raise argparse.ArgumentTypeError(f"{text[:20]!r} {rule}")
    return int(text)
