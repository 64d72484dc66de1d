"""The words of a command line, ``setting=value``, and how values are quoted and listed in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from compress.cli.limits import is_hydras
from compress.registry import GROUPS

PLUGINS = ("hydra/launcher", "hydra/sweeper")  # what of Hydra's own can be chosen; their parameters have dots


@dataclass(frozen=True)
class Word:
    """One word of a command line, ``setting=value``; in a sweep it has several values."""

    setting: str  # a path, or a group of choices
    text: str
    values: tuple[Any, ...]  # all of them, unless there are more than a sweep may have
    texts: tuple[str, ...]  # one word for each value
    count: int = 1  # of values; 0 where it cannot be told
    searched: bool = False  # whether the values are the ends of an interval
    shown: tuple[str, ...] = ()  # `texts` as a user writes them, where Hydra takes them otherwise

    @property
    def is_choice(self) -> bool:
        """Whether it chooses an option of a group rather than sets a value."""
        return self.setting in GROUPS or self.setting == "recipe"

    @property
    def is_hydra(self) -> bool:
        """Whether it is meant for Hydra, as ``hydra/launcher=joblib``."""
        return is_hydras(self.setting)

    @property
    def given(self) -> tuple[str, ...]:
        """One word for each value, as a user may write it."""
        return self.shown or self.texts


def quoted(text: str) -> str:
    """Return ``text`` as one value for Hydra, whatever signs are in it."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


_QUOTED = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,]*))\s*(?:,|$)""")


def listed(text: str) -> list[str]:
    """Return what stands between commas; quotes keep a comma inside, and are taken away."""
    found: list[str] = []
    place = 0
    while place <= len(text):
        match = _QUOTED.match(text, place)
        if match is None:  # a quote with more behind it
            return [*found, text[place:].strip()]
        single, double, bare = match.groups()
        held = single if single is not None else double
        found.append(bare.strip() if held is None else re.sub(r"\\(.)", r"\1", held))
        place = match.end() if match[0].endswith(",") else len(text) + 1
    return found


def as_listed(text: str) -> str:
    """Return ``text`` so that `listed` gives it back."""
    bare = listed(text) == [text]
    return text if bare else "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"
