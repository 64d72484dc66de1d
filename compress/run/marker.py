"""The list of what a run wrote, in its folder. What is not on it, or has changed since, is never touched.

The list is written before the files, so that what a killed process leaves behind is known to be the run's as well.
The files are copies of those in the cache: editing them changes nothing there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from compress.errors import StorageError
from compress.files import copy_file, hash_file, hash_text, storage_faults, write_content, write_json
from compress.runs import MARKER

SCHEMA = 1
ASIDE = ".compress-run.new"  # where files are gathered before they are moved to their places
PAGES = ("recipe.yaml", "report.json", "report.md", "report.html", "answers.npz")
FOLDERS = ("student", "stages", "artifacts", "rejected", "baselines")

Source = Path | str | bytes
"""Where a file's content comes from: a file, or the text or the bytes themselves."""


@dataclass(frozen=True)
class Marker:
    """Which run a folder belongs to, and what it wrote there."""

    run: str  # a hash of all that the run's results depend on
    files: Mapping[str, list[str]] = field(
        default_factory=dict
    )  # by path, the hash of each; while writing, also the one before
    writing: bool = False  # a process is writing, or was killed while it was

    def write(self, folder: Path) -> None:
        """Write it into the folder, whole or not at all."""
        body = {"run": self.run, "writing": self.writing, "files": dict(sorted(self.files.items()))}
        write_json(folder / MARKER, {"schema": SCHEMA, "written_by": "compress", **body})


def read_marker(folder: Path) -> Marker | None:
    """Return the marker of a folder; None where it has none. Raises StorageError where it cannot be read."""
    path = folder / MARKER
    if not os.path.lexists(path):
        return None
    try:
        if path.is_symlink():
            raise ValueError("a link")
        body = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): [str(known) for known in hashes] for name, hashes in body["files"].items()}
        good = body["schema"] == SCHEMA and isinstance(body["run"], str) and isinstance(body["writing"], bool)
        if not good or not all(map(_is_inside, files)):
            raise ValueError("another form")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{path}: cannot be read, so it is not known what this program wrote there. Name another output=, "
            "or delete that folder."
        ) from error
    return Marker(body["run"], files, body["writing"])


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not PurePosixPath(name).is_absolute() and ".." not in parts and name != MARKER


def obstacles(folder: Path, marker: Marker, wanted: Iterable[str] = PAGES) -> Iterator[str]:
    """Yield, as clauses, what in ``folder`` blocks writing and does not belong to the run.

    ``wanted`` are files to be written beside those on the list.
    """
    if not marker.writing and os.path.lexists(folder / ASIDE):
        yield f"{folder / ASIDE} was not written by this program"
    names = sorted({*marker.files, *wanted})
    above = {str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."}
    for name in sorted({*above, *FOLDERS}):
        path = folder / name
        if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
            yield f"{path} is {_kind(path)} where a folder is needed"
    for name in names:
        path = folder / name
        if not os.path.lexists(path) or any((folder / parent).is_symlink() for parent in PurePosixPath(name).parents):
            continue
        if path.is_symlink() or not path.is_file():
            yield f"{path} is {_kind(path)} where a file is needed"
        elif name not in marker.files:
            yield f"{path} was not written by this program"
        elif hash_file(path) not in marker.files[name]:
            yield f"{path} was changed since it was written"


def _kind(path: Path) -> str:
    return "a symbolic link" if path.is_symlink() else "a folder" if path.is_dir() else "a file"


def write_files(folder: Path, run: str, sources: Mapping[str, Source]) -> None:
    """Write ``sources`` by their paths in ``folder``, and remove files of the marker that are not among them.

    Raises StorageError, before anything is replaced, where something else blocks writing or the disk is full.
    """
    before = read_marker(folder) or Marker(run)
    stop_at(obstacles(folder, before, sources))
    hashes = {name: hash_file(new) if isinstance(new, Path) else hash_text(new) for name, new in sources.items()}
    union = {name: list(known) for name, known in before.files.items()}
    for name, new in hashes.items():
        union[name] = [*(known for known in union.get(name, ()) if known != new), new]
    Marker(run, union, writing=True).write(folder)
    aside = folder / ASIDE
    with storage_faults(folder):
        shutil.rmtree(aside, ignore_errors=True)
        settled = {name for name, known in before.files.items() if known == [hashes.get(name)] and not before.writing}
        changed = [name for name in sources if name not in settled or not (folder / name).is_file()]
        try:
            for name in changed:
                _write(sources[name], aside / name)
            _move(changed, aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for name in sorted({*before.files} - {*sources}):
            (folder / name).unlink(missing_ok=True)
            _remove_empty(folder, (folder / name).parent)
    Marker(run, {name: [new] for name, new in hashes.items()}).write(folder)


def stop_at(obstacles: Iterable[str]) -> None:
    """Raise StorageError for the first obstacle."""
    for obstacle in obstacles:
        raise StorageError(f"{obstacle}. Move it away, or name another output=, and run the same command again.")


def _write(source: Source, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        copy_file(source, path)
    else:
        write_content(path, source)


def _move(names: Iterable[str], aside: Path, folder: Path) -> None:
    """Move files from ``aside`` into ``folder``; a new folder appears whole."""
    for name in names:
        if not (aside / name).is_file():
            continue  # it came with its folder
        parents = [PurePosixPath(name), *PurePosixPath(name).parents][:-1]
        whole = next((str(part) for part in reversed(parents) if not (folder / part).exists()), name)
        (folder / whole).parent.mkdir(parents=True, exist_ok=True)
        (aside / whole).replace(folder / whole)


def _remove_empty(folder: Path, below: Path) -> None:
    """Remove empty folders from ``below`` up to ``folder``."""
    while below != folder and below.is_dir() and not any(below.iterdir()):
        below.rmdir()
        below = below.parent
