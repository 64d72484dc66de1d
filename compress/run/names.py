"""Names of runs: what can be a name, the next free number, the link to the latest run, and paths as given."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from compress.errors import CompressError
from compress.files import held, storage_faults
from compress.runs import LATEST, is_unfinished

LONGEST = 255  # bytes of one name on the usual file systems
LONGEST_PATH = 4095
LONGEST_PART = 200  # bytes of a stage's name, which the names of its folders are made of

_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NUMBER = re.compile(r"\d{3,}(?=-|$)")


def name_rule(name: str, longest: int = LONGEST) -> str:
    """Return why ``name`` cannot be the name of a folder, as a clause; empty where it can."""
    if not name.strip() or "/" in name or name.startswith("."):
        return "must be a plain name, without / and not starting with a dot"
    return _text_rule(name, longest)


def path_rule(path: str) -> str:
    """Return why ``path`` cannot be a path, as a clause; empty where it can. Does not look at the disk."""
    if not path.strip():
        return "must name a path"
    if len(path.encode(errors="replace")) > LONGEST_PATH:
        return f"is longer than {LONGEST_PATH:,} bytes, which no path can be"
    return next((rule for part in path.split("/") if (rule := _text_rule(part, LONGEST))), "")


def _text_rule(text: str, longest: int) -> str:
    if unusable := _UNUSABLE.search(text):
        code = ord(unusable[0])
        kind = "bytes that are not UTF-8 text" if code >= 0xD800 else f"the control character U+{code:04X}"
        return f"must not hold {kind}"
    size = len(text.encode())
    return f"holds a name of {size} bytes; at most {longest} are possible" if size > longest else ""


def given_path(text: str, what: str = "the path") -> Path:
    """Return a path of the command line, ``~`` replaced; raises CompressError where it cannot be one."""
    if rule := path_rule(text):
        raise CompressError(f"{what} {text!r} {rule}. Rename it, or name another.")
    return Path(text).expanduser()


def reserve(parent: Path, label: str = "") -> Path:
    """Make and return the folder of a run without a name: the next free number, then ``label``. Raises StorageError.

    No two processes get the same number.
    """
    with storage_faults(parent):
        parent.mkdir(parents=True, exist_ok=True)
        with held(parent):
            taken = {int(match[0]) for path in parent.iterdir() if (match := _NUMBER.match(path.name))}
            number = 1 + max((number for number in taken if number <= 999), default=0)
            while number in taken:
                number += 1
            folder = parent / (f"{number:03d}-{label}" if label else f"{number:03d}")
            folder.mkdir()
            return folder


def point_to_latest(folder: Path) -> str:
    """Make ``latest`` beside ``folder`` a relative link to it; return why that is left, where it is.

    A file or folder of that name, and a link to elsewhere, are somebody's and stay.
    """
    link = folder.parent / LATEST
    if os.path.lexists(link) and not (link.is_symlink() and len(link.readlink().parts) == 1):
        return f"{link} was not written by this program, and is left unchanged"
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".latest-") as aside:
            (Path(aside) / LATEST).symlink_to(folder.name)
            (Path(aside) / LATEST).replace(link)
    except OSError as error:  # a file system without links
        return f"{link} cannot be a link: {error.strerror}"
    return ""


def distinct(paths: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """Return the paths of a command line, as of ``runs/quickstart/*``, that stand for runs of their own.

    Left out, and said, are ``latest`` beside the run that it leads to, and runs that are not finished, where others
    remain. Raises CompressError where a path cannot be one.
    """
    places = {path: given_path(path) for path in paths}
    others = {os.path.realpath(place) for place in places.values() if LATEST not in place.parts}
    kept = []
    for path in paths:
        if LATEST in places[path].parts and os.path.realpath(places[path]) in others:
            say(f"{path} leads to another of these paths and is skipped")
        else:
            kept.append(path)
    finished = [path for path in kept if not is_unfinished(places[path])]
    for path in kept if finished else ():
        if path not in finished:
            say(f"{path} is not finished and is skipped")
    return finished or kept


def as_lasting(path: Path) -> Path:
    """Return the absolute path of a folder without links, since ``latest`` leads to another run tomorrow."""
    return Path(os.path.realpath(path))
