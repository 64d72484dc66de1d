"""The files that a setting names, one or those of a pattern, and why they cannot be read."""

from __future__ import annotations

import glob
from pathlib import Path

from compress.data import conll
from compress.data.formats import READERS
from compress.data.unpacking import packed_fault, suffix_of
from compress.files import no_file
from compress.hub_access import meant_file

KNOWN = (*READERS, *conll.SUFFIXES)
"""Suffixes of files with rows; that of an archive may follow."""


def files_of(name: str) -> list[Path]:
    """Return the files of a path, or of a pattern such as rows-*.jsonl, in the order of their names.

    A path without a file is returned as it is; a pattern without one gives nothing.
    """
    path = Path(name).expanduser()
    if not glob.has_magic(name) or path.exists():
        return [path]
    found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - takes absolute patterns too
    return sorted(path for path in map(Path, found) if path.is_file())


def names_fault(name: str, unlabelled: bool, *, any_suffix: bool) -> tuple[str, str] | None:
    """Return (rule, remedy) if a path or a pattern names no readable files; ``any_suffix``: their format is given."""
    files = files_of(name)
    if not files:
        return "matches no file", "* stands for any part of a name, ** for folders. Correct it."
    for path in files:
        if fault := _fault(path, unlabelled, any_suffix):
            rule, remedy = fault
            return (rule if len(files) == 1 else f"names {path}, which {rule}"), remedy
    suffixes = sorted({suffix_of(path) for path in files})
    if len(suffixes) > 1 and not any_suffix:
        return f"names files with {' and '.join(suffixes)}", "Name files that are written in one way."
    return None


def _fault(path: Path, unlabelled: bool, any_suffix: bool) -> tuple[str, str] | None:
    try:
        return _looked_at(path, unlabelled, any_suffix)
    except OSError as error:
        return f"cannot be read ({error.strerror})", "Make it readable: chmod u+r FILE, and chmod u+rx its folder."


def _looked_at(path: Path, unlabelled: bool, any_suffix: bool) -> tuple[str, str] | None:
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if suffix_of(p) in KNOWN)[:5]
        return "is a directory", f"Name a file in it: {', '.join(inside)}." if inside else "Name a file."
    if rule := no_file(path):
        if path.exists():
            return rule, "Copy its content to a file."
        folder = path.parent.is_dir()
        return rule, meant_file(path) or ("" if folder else f"Nor does the folder {path.parent}.")
    known = [*KNOWN, *([".txt"] if unlabelled else [])]
    suffix = suffix_of(path)
    if not any_suffix and suffix not in known:
        columns = " Columns of words and tags: data.format=conll." if suffix == ".txt" else ""
        remedy = f"Known: {', '.join(known)}. Rename or convert it, or name its format: data.format.{columns}"
        return f"has the unknown suffix {suffix!r}", remedy
    return packed_fault(path) or (("has no rows", "The file is empty.") if path.stat().st_size == 0 else None)
