"""Texts without labels: a file with one row per line."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from compress.data.dataset import Split
from compress.data.formats import READERS, Bad, lines_of
from compress.errors import DataError, Fault

REMEDY = "Name a text file with one row per line, or leave it out to use the run's own rows."


def corpus_faults(setting: str, name: str) -> Iterator[Fault]:
    """Yield a fault unless ``name`` is a text file with rows; does not read its lines."""
    path = Path(name).expanduser()
    if path.suffix.lower() in READERS:
        yield Fault(setting, name, "is a table, where a text file is needed", REMEDY)
    elif path.is_dir():
        yield Fault(setting, name, "is a directory", REMEDY)
    elif not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        close = get_close_matches(path.name, siblings, n=1)
        yield Fault(setting, name, "does not exist", f"Did you mean {path.parent / close[0]}?" if close else REMEDY)
    elif path.stat().st_size == 0:
        yield Fault(setting, name, "has no rows", "The file is empty.")


def read_corpus(name: str) -> Split:
    """Return the lines of a text file that are not empty; raises DataError if there are none, or one is not text."""
    texts: list[str] = []
    for number, line in lines_of(Path(name).expanduser()):
        if isinstance(line, Bad):
            raise DataError(f"{name}, line {number}: {line.reason}")
        if line.strip():
            texts.append(line.strip())
    if not texts:
        raise DataError(f"{name}: has no rows. {REMEDY}")
    return Split(tuple(texts))
