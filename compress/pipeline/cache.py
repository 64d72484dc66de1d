"""A cache folder: what is in it, who uses it, and how parts of it are removed.

Beside the finished folders and those in the making there are ``locks/`` and ``uses/``, which names, for each of them,
the runs that took it; that file's time is the last use. A process names what it works with in ``locks/in-use/``, and
locks and renews that file for as long as it lives, so that nothing is removed that it may still read. Only folders that
`Workshop` made are ever removed: they have a lock of their name. Machines may share a cache (`compress.leases`).
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from compress.errors import DamagedError, StorageError
from compress.files import locked, no_folder, storage_faults, write_json
from compress.leases import SUFFIX, flocked, is_fresh, keep_fresh, machine
from compress.sealed import read_sealed

MARKER = ".compress-cache.json"  # says that a folder is a cache of this program
PRODUCT = "product.json"  # written last into a finished folder: its key, seconds, record and files
PARTIAL = ".partial"  # how the name of a folder in the making ends
LOCKS, USES, IN_USE = "locks", "uses", "in-use"
_NAME = re.compile(r"(?P<kind>.+)-[0-9a-f]{24}(?P<partial>\.partial)?")

_own: dict[tuple[Path, int], IO[str]] = {}  # by cache and process: the locked list of what this process uses


@dataclass(frozen=True)
class CacheEntry:
    """A folder in the cache."""

    folder: Path
    kind: str
    finished: bool
    size: int  # bytes on disk
    used: float  # when it was last asked for, in seconds since 1970
    runs: tuple[str, ...]  # folders of runs that took it and are still there
    in_use: bool  # by a process that is running now


@dataclass(frozen=True)
class Cache:
    """A folder of finished work."""

    folder: Path

    def use(self, name: str, run: str | None) -> None:
        """Note that this process, and a run, take the folder of that name; it is not removed while the process lives.

        Marks the cache as one, and makes it where it is missing.
        """
        with storage_faults(self.folder):
            if not (self.folder / MARKER).exists():
                write_json(self.folder / MARKER, {"schema": 1, "written_by": "compress"})
            own = self.folder.resolve(), os.getpid()
            if own not in _own or not os.fstat(_own[own].fileno()).st_nlink:  # a cache that was deleted by hand
                with self._gate():
                    self._forget_ended()
                    _own[own] = self._new_list()
            with self._gate():
                _own[own].write(name + "\n")
                _own[own].flush()
                os.fsync(_own[own].fileno())  # so that other machines see it
                uses = self.folder / USES / name
                uses.parent.mkdir(exist_ok=True)
                known = uses.read_text().splitlines() if uses.exists() else []
                with uses.open("a") as file:
                    if run and run not in known:
                        file.write(run + "\n")
                os.utime(uses)

    def entries(self) -> list[CacheEntry]:
        """Return what is in the cache, least recently used first. Raises StorageError."""
        with storage_faults(self.folder), self._gate():
            return self._entries()

    def remove(self, chosen: Callable[[list[CacheEntry]], list[CacheEntry]]) -> tuple[list[CacheEntry], list[str]]:
        """Remove those entries that ``chosen`` takes of all; return the removed, and why others had to stay.

        No process can begin to use an entry meanwhile.
        """
        removed: list[CacheEntry] = []
        kept: list[str] = []
        with storage_faults(self.folder), self._gate():
            for entry in chosen(self._entries()):
                if entry.in_use:
                    kept.append(f"{entry.folder.name} is in use by a running process")
                elif stray := _stray(entry):
                    kept.append(f"{entry.folder.name} holds {stray}, which this program did not write")
                else:
                    shutil.rmtree(entry.folder)
                    removed.append(entry)
            left = {path.name.removesuffix(PARTIAL) for path in self.folder.iterdir()}
            for entry in removed:
                name = entry.folder.name.removesuffix(PARTIAL)
                if name not in left:
                    (self.folder / USES / name).unlink(missing_ok=True)
                    (self.folder / LOCKS / name).unlink(missing_ok=True)
                    (self.folder / LOCKS / (name + SUFFIX)).unlink(missing_ok=True)
        return removed, kept

    def _entries(self) -> list[CacheEntry]:
        in_use = self._in_use()
        entries = []
        for path in self.folder.iterdir():
            name = path.name.removesuffix(PARTIAL)
            parts = _NAME.fullmatch(path.name)
            if parts is None or path.is_symlink() or not path.is_dir() or not (self.folder / LOCKS / name).is_file():
                continue
            uses = self.folder / USES / name
            used = (uses if uses.exists() else path).stat().st_mtime
            runs = uses.read_text().splitlines() if uses.exists() else []
            entries.append(
                CacheEntry(
                    path,
                    parts["kind"],
                    not parts["partial"],
                    sum(file.lstat().st_blocks * 512 for file in (path, *path.rglob("*"))),
                    used,
                    tuple(run for run in runs if Path(run).is_dir()),
                    name in in_use,
                )
            )
        return sorted(entries, key=lambda entry: (entry.used, entry.folder.name))

    def _gate(self) -> AbstractContextManager[object]:
        """Hold the lock under which folders begin to be used, and are removed."""
        return locked(self.folder / LOCKS / "gate")

    def _new_list(self) -> IO[str]:
        folder = self.folder / LOCKS / IN_USE
        folder.mkdir(exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=f"{_here()}{os.getpid()}-")
        file = os.fdopen(descriptor, "w")
        flocked(file, wait=True)  # goes with the process
        keep_fresh(Path(name))
        atexit.register(file.close)
        return file

    def _lists(self) -> Iterator[tuple[Path, bool]]:
        """Yield the lists of what processes use, and whether each one's process is still running."""
        for path in (self.folder / LOCKS / IN_USE).glob("*"):
            free = None
            if path.name.startswith(_here()):
                with path.open("a") as file:
                    free = flocked(file, wait=False)
            yield path, is_fresh(path) if free is None else not free

    def _forget_ended(self) -> None:
        for path, running in self._lists():
            if not running:
                path.unlink()

    def _in_use(self) -> set[str]:
        return {name for path, running in self._lists() if running for name in path.read_text().splitlines()}


def open_cache(folder: Path) -> Cache:
    """Return the cache in ``folder``; raises StorageError where there is none."""
    with storage_faults(folder):
        if rule := no_folder(folder):
            raise StorageError(f"{folder}: {rule}. Name the cache: --cache FOLDER.")
        try:
            written_by = json.loads((folder / MARKER).read_bytes())["written_by"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            written_by = None
        if written_by != "compress":
            raise StorageError(
                f"{folder}: is not a cache of this program (it has no {MARKER}), so nothing there is touched. "
                "Name the cache: --cache FOLDER."
            )
    return Cache(folder)


def age(entry: CacheEntry) -> float:
    """Return the seconds since an entry was last used."""
    return max(0.0, time.time() - entry.used)


def _here() -> str:
    """Return how the names of lists of this machine's processes begin."""
    return f"{hashlib.sha256(machine().encode()).hexdigest()[:12]}-"


def _stray(entry: CacheEntry) -> str | None:
    """Return a file in a finished folder that is not on its list; None where there is none, or the list is broken."""
    try:
        product = read_sealed(entry.folder / PRODUCT) if entry.finished else None
    except DamagedError:
        return None
    if product is None:
        return None
    files = (path.relative_to(entry.folder).as_posix() for path in entry.folder.rglob("*") if not path.is_dir())
    return next((name for name in sorted(files) if name != PRODUCT and name not in product["files"]), None)
