"""Errors that the user can fix; each message says how.

Every class here ends the program with exit code 2 and one message, without a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class CompressError(Exception):
    """An error that the user can fix; the message says where and how."""


def in_one_line(error: Exception) -> str:
    """Return an error as a clause of at most 300 characters, with its class where it is not this package's."""
    text = " ".join(str(error).split()).rstrip(".")[:300]
    return text if isinstance(error, CompressError) else f"{type(error).__name__}: {text}".rstrip(": ")


DISTRIBUTION = "compress-encoders"
"""What pip installs this package by; ``compress`` on PyPI is somebody else's."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one setting of a recipe."""

    setting: str  # path of the setting, for example "prune.heads.ratio"
    value: object
    rule: str  # what must hold, as a clause: "must lie in [0, 1)"
    remedy: str = ""  # what to do, as a sentence

    def __str__(self) -> str:
        value = "" if self.value is None else f" = {self.value!r}"
        return f"{self.setting}{value}: {self.rule}." + (f" {self.remedy}" if self.remedy else "")

    def under(self, prefix: str) -> Fault:
        """Return the same fault with ``prefix`` before its setting, or as that of ``prefix`` where it has none."""
        return Fault(f"{prefix}.{self.setting}" if self.setting else prefix, self.value, self.rule, self.remedy)


class RecipeError(CompressError):
    """A recipe has one or more faults; the message lists all of them."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        many = "" if len(self.faults) == 1 else f"{len(self.faults)} errors in the recipe; nothing was started.\n"
        super().__init__(many + "\n".join(f"{'- ' if many else ''}{fault}" for fault in self.faults))


class DataError(CompressError):
    """A data file or set cannot be used; the message names the file and, where there is one, the line."""


class ModelError(CompressError):
    """A model folder or hub id cannot be used."""


class StorageError(CompressError):
    """A folder cannot be written to or is full; earlier files are intact."""


class DivergedError(CompressError):
    """A training's loss is not finite any more."""


class DamagedError(CompressError):
    """A stored file has changed since it was written. The cache catches this and repeats the work."""

    def __init__(self, path: Path, how: str) -> None:
        self.path, self.how = path, how  # how: "is missing"
        super().__init__(f"{path} {how}. Delete it and run the same command again.")


class MissingPackageError(CompressError):
    """An optional package is needed; the message says how to install it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}. Install it: pip install '{DISTRIBUTION}[{extra}]'.")
