"""The folder of a search: which one it is, what it holds, and who writes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import msgspec

from compress.errors import Fault, RecipeError, StorageError
from compress.files import storage_faults, write_text
from compress.machine import describe
from compress.run.names import point_to_latest, reserve
from compress.run.place import alone, place_faults
from compress.run.recipe import Recipe
from compress.search.page import to_page
from compress.search.result import FILE, SearchReport
from compress.search.settings import SearchTarget
from compress.search.study import JOURNAL

PAGE = "search.html"
RUN = "run"  # the folder of the finished student's run, within the search's


def write(folder: Path, report: SearchReport) -> None:
    """Write search.json, and the page once there is something to see."""
    with storage_faults(folder):
        write_text(folder / FILE, msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
        if report.forms:
            write_text(folder / PAGE, to_page(report))


@contextmanager
def held(base: Recipe, which: str, command: str, target: SearchTarget) -> Iterator[tuple[Path, SearchReport]]:
    """Hold the folder of this search: the one that is named, an unfinished one of the same settings, or a new one.

    The report is what an earlier process has left there, or a new one. ``which`` tells this search from others.
    """
    folder = _named(base, which) if base.output else _unfinished(base.parent, which) or reserve(base.parent)
    with alone(folder):
        report = read(folder)
        if report is None or report.identity != which:  # that of a target which was refused before any training
            report = SearchReport(
                command=command, identity=which, target=asdict(target), metric="",
                machine=describe(base.benchmark.threads),
            )  # fmt: skip
            write(folder, report)
        yield folder, report
    if not base.output:
        point_to_latest(folder)


def read(folder: Path) -> SearchReport | None:
    """Return what is in the search.json of a folder; None where there is none. Raises StorageError."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=SearchReport)
    except (OSError, msgspec.DecodeError) as error:
        raise StorageError(f"{path}: cannot be read: {error}. Move it away, or name another output=.") from error


def _named(base: Recipe, which: str) -> Path:
    """Return the folder that was asked for, made where it is missing; raises RecipeError where it holds other work."""
    folder = Path(str(base.output)).expanduser()
    with storage_faults(folder):
        there = read(folder) if folder.is_dir() else None
        if there is not None and there.identity != which and (there.finished or (folder / JOURNAL).exists()):
            rule = "holds another search, with other settings or data"
            raise RecipeError([Fault("output", base.output, rule, "Name another folder.")])
        if there is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            rule = "is not empty and holds no search"
            raise RecipeError([Fault("output", base.output, rule, "Name another folder.")])
        if faults := [*place_faults(replace(base, output=str(folder / RUN), name=None))]:
            raise RecipeError(faults)
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unfinished(parent: Path, which: str) -> Path | None:
    """Return the folder of a search of the same settings that was interrupted."""
    return next((folder for folder, found in _searches(parent) if found.identity == which and not found.finished), None)


def _searches(parent: Path) -> Iterator[tuple[Path, SearchReport]]:
    """Yield the searches among the folders of ``parent``."""
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        if not folder.is_symlink() and (report := read(folder)) is not None:
            yield folder, report
