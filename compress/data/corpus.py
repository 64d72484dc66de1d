"""Texts without labels: a file with one row per line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from compress.data.dataset import Split
from compress.data.formats import READERS, Bad, lines_of
from compress.data.unpacking import suffix_of
from compress.errors import DataError, Fault
from compress.files import no_file
from compress.hub_access import meant_file

REMEDY = "Name a text file with one row per line, or leave it out to use the run's own rows."


def corpus_faults(setting: str, name: str) -> Iterator[Fault]:
    """Yield a fault unless ``name`` is a text file with rows; does not read its lines."""
    path = Path(name).expanduser()
    if suffix_of(path) in READERS:
        yield Fault(setting, name, "is a table, where a text file is needed", REMEDY)
    elif rule := no_file(path):
        yield Fault(setting, name, rule, meant_file(path) or REMEDY)
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
