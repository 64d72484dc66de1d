"""Files and folders given as the name of a data set: the message names the setting that reads them."""

from __future__ import annotations

from pathlib import Path

from compress.data.formats import READERS
from compress.data.unpacking import suffix_of
from compress.files import no_file
from compress.hub_access import looks_like_a_path, meant_file

EXAMPLE = "Read files with data=files data.train=PATH."


def no_data_set(name: str) -> tuple[str, str] | None:
    """Return (rule, remedy) if a name is a file or a path that does not exist; None if it may be a data set.

    A folder is accepted only in `data.path`, where the hub's library reads it.
    """
    path = Path(name).expanduser()
    try:
        if path.is_file():
            return "is a file, not a data set", f"Read it with data=files data.train={name}."
        is_path = looks_like_a_path(name) or suffix_of(path) in READERS
        if path.is_dir() or not is_path:
            return None
    except OSError as error:
        return f"cannot be read ({error.strerror})", EXAMPLE
    return no_file(path), f"{meant_file(path)} {EXAMPLE}".strip()


def folder_instead(name: str) -> tuple[str, str] | None:
    """Return (rule, remedy) if a folder is given as a data set's name; None for anything else."""
    path = Path(name).expanduser()
    try:
        if not path.is_dir():
            return None
        files = sorted(inside.name for inside in path.iterdir() if suffix_of(inside) in READERS)
    except OSError as error:
        return f"cannot be read ({error.strerror})", EXAMPLE
    if files:
        train = next((file for file in files if "train" in file.lower()), files[0])
        test = next((file for file in files if "test" in file.lower() and file != train), None)
        words = f"data.train={path / train}" + (f" data.test={path / test}" if test else "")
        return "is a folder", f"Read its files: data=files {words}."
    return "is a folder", f"If the datasets library knows its layout: data=hub data.path={name}."
