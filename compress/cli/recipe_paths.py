"""Recipe files: where they lie, how their paths are written, and what their first lines say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from compress.cli.limits import LONGEST_FILE
from compress.yaml_dialect import HEADER

ENDINGS = (".yaml", ".yml")


def known() -> dict[str, Path]:
    """Return name and file of every recipe that can be named: those shipped, and those in ./recipes, which win."""
    package = Path(__file__).parents[1]
    installed, checkout = package / "recipes", package.parent / "recipes"
    found: dict[str, Path] = {}
    for folder in (installed if installed.is_dir() else checkout, Path("recipes")):
        for path in folder.glob("*"):
            if path.suffix in ENDINGS and path.is_file() and _head(path)[:1] == [HEADER]:
                found[path.stem] = path
    return dict(sorted(found.items()))


def headline(path: Path) -> str:
    """Return what the first comment of a recipe file says it is, without the command beside it."""
    first = next((line for line in _head(path) if line != HEADER), "")
    return re.split(r"\s{2,}|\s+compress run\b", first.lstrip("# "), maxsplit=1)[0]


def shown(path: Path) -> str:
    """Return ``path`` as a user would write it from the current folder."""
    try:
        return str(resolved(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def resolved(path: Path) -> Path:
    """Return the absolute path without links, or with them where they lead nowhere."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path.absolute()


def path_of(text: str) -> Path:
    """Return the path that a user writes, which may begin with ``~``."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user
        return Path(text)


def is_file(text: str) -> bool:
    """Return whether a text is the path of a file."""
    try:
        return path_of(text).is_file()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def came_with(path: Path, texts: Iterable[str]) -> bool:
    """Return whether a recipe file lies in the folder of a model, or in one that the texts name or take a file from."""
    file, folder = resolved(path), resolved(path).parent
    if (folder / "config.json").exists():
        return True
    own = {Path.cwd(), *Path.cwd().parents}  # where a user works, whatever else is there
    holding = {folder, *folder.parents} - own
    places = (place for text in texts if (place := _existing(text)) is not None and place != file)
    return any((place if place.is_dir() else place.parent) in holding for place in places)


def _existing(text: str) -> Path | None:
    """Return the file or folder that a text is the path of; None where there is none."""
    try:
        return resolved(path_of(text)) if path_of(text).exists() else None
    except (OSError, ValueError):  # a name that is too long, one with a NUL
        return None


def _head(path: Path) -> list[str]:
    """Return the comment lines with which a file begins; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            lines = file.read(LONGEST_FILE).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return lines[: next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))]
