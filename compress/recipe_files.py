"""Recipe files: where they lie, what their first lines say, and what is in them, with line numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compress.errors import Fault, RecipeError

ENDINGS = (".yaml", ".yml")
HEADER = "# @package _global_"


@dataclass(frozen=True)
class RecipeFile:
    """A recipe file as it stands: its defaults list, its values, and the line of each key by its dotted path."""

    path: Path
    defaults: list[Any]
    values: dict[str, Any]
    lines: Mapping[str, int]

    def line(self, setting: str) -> str:
        """Return file and line of a setting, or of an entry of a list, as ``defaults.0``."""
        return f"{shown(self.path)}:{self.lines.get(setting, 1)}"


def known() -> dict[str, Path]:
    """Return name and file of every recipe that can be named: those shipped, and those in ./recipes, which win."""
    package = Path(__file__).parent
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
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def read(path: Path) -> RecipeFile:
    """Read a recipe file. Raises RecipeError where it is no YAML file of settings."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_Loader)
        content = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError([Fault(f"{shown(path)}:{line}", None, f"this is no YAML: {error.problem}")]) from error
    except FileNotFoundError as error:
        raise RecipeError([Fault("recipe", shown(path), "is no file", "See `compress recipes`.")]) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError([Fault("recipe", shown(path), "cannot be read as a text file of YAML")]) from error
    if not isinstance(content, dict | None):
        raise RecipeError([Fault(f"{shown(path)}:1", None, "a recipe holds settings, as `seed: 7`")])
    values = {str(key): value for key, value in (content or {}).items()}
    defaults = values.pop("defaults", None) or []
    if not isinstance(defaults, list):
        example = "For example `- override /prune: [heads]`."
        raise RecipeError([Fault(f"{shown(path)}: defaults", defaults, "must be a list of choices", example)])
    faults: list[Fault] = []
    lines: dict[str, int] = {}
    for setting, line in _lines(root, ""):
        if setting in lines:
            rule = f"is there already, in line {lines[setting]}"
            faults.append(Fault(f"{shown(path)}:{line}: {setting}", None, rule))
        lines[setting] = line
    if faults:
        raise RecipeError(faults)
    return RecipeFile(path, defaults, values, lines)


def _head(path: Path) -> list[str]:
    """Return the comment lines with which a file begins."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[: next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))]


def _lines(node: yaml.Node | None, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = f"{path}.{key.value}" if path else str(key.value)
            yield where, key.start_mark.line + 1
            yield from _lines(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{path}.{index}", value.start_mark.line + 1


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, which YAML 1.1 does not, and leaves dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))
