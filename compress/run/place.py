"""Where a run may be written: in a folder of its own, away from all that it reads, and taken before work starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.data.hub import Hub
from compress.data.splits import SPLITS
from compress.errors import Fault, StorageError
from compress.files import hash_json, held, storage_faults, writable
from compress.run.marker import FOLDERS, Marker, obstacles, read_marker, stop_at
from compress.run.names import LONGEST_PART, as_lasting, name_rule, path_rule, reserve
from compress.runs import LATEST, MARKER
from compress.settings import Settings, plain

if TYPE_CHECKING:
    from compress.run.recipe import Recipe

NO_RESULT = ("recipe", "name", "output", "cache", "report_to")
"""Settings that change where a run writes, and nothing in what it writes."""

_WORDS = frozenset(
    (
        "text", "text_pair", "label", "labels", "subset", "main", "layer_map", "losses", "pattern", "freeze",
        "compute_capabilities", "image",
    )
)  # fmt: skip
"""Settings that hold names of columns, labels, parameters and the like, never of files."""

GROUPS = ("augment", "prepare", "prune", "quantize", "export", "exit")
ELSEWHERE = "Name another output=, or move away what is there."


def name_faults(recipe: Recipe) -> Iterator[Fault]:
    """Yield what cannot be a name or a path, and names that two artifacts share. Does not look at the disk."""
    for setting in ("recipe", "name"):
        value = getattr(recipe, setting)
        if value is not None and (rule := name_rule(value)):
            yield Fault(setting, value, rule, "Choose another.")
    if recipe.name == LATEST:
        yield Fault("name", LATEST, "is the name of the link to the latest run", "Choose another.")
    for setting in ("output", "cache"):
        value = getattr(recipe, setting)
        if value is not None and (rule := path_rule(value)):
            yield Fault(setting, value, rule, "Name another folder.")
    for group in GROUPS:
        for name in getattr(recipe, group):
            if rule := name_rule(name, LONGEST_PART):
                yield Fault(group, name, rule, "Choose another name for that stage.")
    for name in recipe.quantize:
        if name in recipe.export:
            yield Fault(
                "quantize", name, "is the name of an export too, and both would write to one folder", "Rename it."
            )
    for group in ("export", "quantize"):
        if "student" in getattr(recipe, group):
            yield Fault(group, "student", "is the name of the student itself", "Rename that stage.")
    for setting, text in _texts(recipe):
        if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text):
            yield Fault(setting, text, "holds U+0000 or bytes that are not UTF-8 text", "Rename that file or folder.")


def place_faults(recipe: Recipe) -> Iterator[Fault]:
    """Yield why the run cannot be written where it is to be; names and paths must be usable. Changes nothing."""
    faults = list(_overlaps(recipe))
    folder = recipe.folder
    if folder is not None and not faults:
        faults += [Fault(*_setting(recipe), rule, ELSEWHERE) for rule in _standing(folder)]
    for setting, place in (("output", folder or recipe.parent), ("cache", recipe.cache_folder)):
        if not any(fault.setting == setting for fault in faults):
            try:
                writable(place)
            except StorageError as error:
                faults.append(Fault(setting, None, str(error).rstrip(".")))
    yield from faults


def identity(recipe: Recipe, data: str) -> str:
    """Return a hash of all settings that decide what a run writes, and of its ``data``, given by its fingerprint."""
    settings = {
        field.name: plain(getattr(recipe, field.name)) for field in fields(recipe) if field.name not in NO_RESULT
    }
    return hash_json([_as_composed(settings), data])


def _as_composed(value: Any) -> Any:
    """Return plain settings in which a whole number is the same whether it was given as 2 or 2.0."""
    if isinstance(value, Mapping):
        return {key: _as_composed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_composed(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def lasting(value: Any) -> Any:
    """Return settings whose paths are texts, and do not go through ``latest``, which leads to another run tomorrow."""
    if isinstance(value, Settings):
        before = {field.name: getattr(value, field.name) for field in fields(value)}
        changes = {name: after for name, held in before.items() if (after := lasting(held)) is not held}
        return replace(value, **changes) if changes else value
    if isinstance(value, Mapping):
        return {key: lasting(item) for key, item in value.items()}
    if isinstance(value, list):
        return [lasting(item) for item in value]
    if isinstance(value, os.PathLike):
        return lasting(os.fspath(value))
    if isinstance(value, str) and LATEST in Path(value).parts and os.path.lexists(Path(value).expanduser()):
        return str(as_lasting(Path(value).expanduser()))
    return value


def other_run(recipe: Recipe, run: str) -> Iterator[Fault]:
    """Yield a fault where the folder holds another run than ``run``, as `identity` gives it."""
    folder = recipe.folder
    with suppress(StorageError):  # told by `place_faults`
        marker = read_marker(folder) if folder is not None else None
        if marker is not None and marker.files and marker.run != run:
            rule = f"{folder} holds another run, with other settings or data"
            yield Fault(*_setting(recipe), rule, f"Name another {_setting(recipe)[0]}=, or delete that folder.")


@contextmanager
def claimed(recipe: Recipe, run: str, label: str = "") -> Iterator[Path]:
    """Hold the run's folder, made where it is missing, so that no other process writes there.

    A run without a name gets the next number, and ``label`` behind it. A folder that was made here and in which
    nothing was written is removed again. Raises StorageError.
    """
    folder, made = recipe.folder, True
    if folder is None:
        folder = reserve(recipe.parent, label)
    else:
        with storage_faults(folder):
            made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        stop_at(_standing(folder))
        marker = read_marker(folder)
        if marker is not None and marker.files and marker.run != run:
            raise StorageError(f"{folder}: holds another run, with other settings or data. Name another output=.")
        try:
            if marker is None or not marker.files:
                Marker(run).write(folder)
            yield folder
        finally:
            _leave(folder, made=made)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder; raises StorageError where another process does."""
    with ExitStack() as stack:
        with storage_faults(folder):
            try:
                stack.enter_context(held(folder, wait=False))
            except BlockingIOError:
                raise StorageError(
                    f"{folder}: another process is writing a run there. Wait until it ends, or name another output=."
                ) from None
        yield


def _leave(folder: Path, *, made: bool) -> None:
    """Remove the marker of a run that wrote nothing, and the folder that was made for it, if nothing is in it."""
    with suppress(OSError, StorageError):
        marker = read_marker(folder)
        if marker is not None and not marker.files:
            (folder / MARKER).unlink()
            if made:
                folder.rmdir()


def _setting(recipe: Recipe) -> tuple[str, str | None]:
    """Return the setting that chose the folder, and its value."""
    return ("output", recipe.output) if recipe.output else ("name", recipe.name)


def _standing(folder: Path) -> Iterator[str]:
    """Yield, as clauses, why what stands at ``folder`` cannot be written to."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        yield (
            f"{folder} is a symbolic link that does not lead to a folder"
            if folder.is_symlink()
            else f"{folder} is a file"
        )
        return
    try:
        marker = read_marker(folder)
        if marker is not None:
            yield from obstacles(folder, marker)
            for name in () if marker.files else FOLDERS:  # nothing was written yet, so all that is there is a user's
                if os.path.lexists(folder / name):
                    yield f"{folder / name} was not written by this program"
        elif any(folder.iterdir()):
            why = "it is not empty, and not a run of this program"
            if (folder / "report.json").exists():
                why = "its run was written by a version that did not list its files"
            yield f"{folder} has no {MARKER}: {why}, so nothing there is touched"
    except StorageError as error:
        yield str(error).partition(", so ")[0]
    except OSError as error:
        yield f"{folder} cannot be read: {error.strerror}"


def _overlaps(recipe: Recipe) -> Iterator[Fault]:
    """Yield where the run's folder is, holds, or is inside something that the run reads, or the cache."""
    folder = recipe.folder or recipe.parent / "000"  # any number: it is not there yet
    for setting, text in (*_texts(recipe, paths=True), ("cache", recipe.cache)):
        source = recipe.cache_folder if setting == "cache" else Path(text).expanduser()
        if setting != "cache" and not os.path.lexists(source):
            continue
        how = _relation(os.path.realpath(folder), os.path.realpath(source))
        if how:
            rule = f"{folder} {how} {setting} = {text!r}, which must not change"
            if recipe.folder is None:
                yield Fault("recipe", recipe.recipe, rule, "Name a folder for the run: output=.")
            else:
                yield Fault(*_setting(recipe), rule, "Name another folder.")


def _relation(folder: str, source: str) -> str:
    if folder == source:
        return "is"
    if Path(folder) in Path(source).parents:
        return "holds"
    return "is inside" if Path(source) in Path(folder).parents else ""


def _words(settings: Settings) -> frozenset[str]:
    """Return the names of the settings that never name a file; those of the hub's splits do not either."""
    return _WORDS.union(SPLITS) if isinstance(settings, Hub) else _WORDS


def _texts(recipe: Recipe, *, paths: bool = False) -> Iterator[tuple[str, str]]:
    """Yield setting and value of each text among the settings; with ``paths`` only what may name a file or folder."""
    for field in fields(recipe):
        if field.name not in NO_RESULT:
            yield from _texts_in(getattr(recipe, field.name), field.name, paths)


def _texts_in(value: Any, path: str, paths: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, Settings):
        words = _words(value) if paths else frozenset()
        for field in fields(value):
            if field.name not in words:
                yield from _texts_in(getattr(value, field.name), f"{path}.{field.name}", paths)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts_in(item, f"{path}.{key}", paths)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts_in(item, path, paths)
    elif isinstance(value, (str, os.PathLike)) and str(value):
        yield path, str(value)
