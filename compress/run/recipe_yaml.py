"""recipe.yaml: a recipe as the file that composes to it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.registry import GROUPS, slot
from compress.yaml_dialect import HEADER, dump

GIVEN = "given"  # the folder in the cache of what Python handed over; see `compress.run.handed_over`

if TYPE_CHECKING:
    from compress.run.recipe import Recipe


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe file that composes to ``recipe`` again, except for the run's name and folder."""
    named: list[str] = []
    overrides: list[str] = []
    notes: list[str] = []
    for group, known in GROUPS.items():
        held = slot(recipe, group)
        parts = held if isinstance(held, Mapping) else {"": held}
        options = {key: known.name_of(part) for key, part in parts.items()}
        for key, option in options.items():
            if option is None:
                notes.append(f"# {type(parts[key]).__name__} is known to Python only: no recipe file can choose it.")
        if not isinstance(held, Mapping):
            overrides.append(f"override /{group}: {options['']}")
        elif all(key == option for key, option in options.items()):
            overrides.append(f"override /{group}: [{', '.join(options)}]")
        else:  # an option under a name of its own
            package = group.replace("/", ".")
            named += [f"/{group}@{package}.{key}: {option}" for key, option in options.items()]
            overrides.append(f"override /{group}: []")
    kept = (setting for setting, path in _sources(recipe) if GIVEN in Path(path).parts)
    notes += [
        f"# {setting} was handed over by Python; this is its copy in the cache, {recipe.cache}." for setting in kept
    ]
    values = {key: value for key, value in _written(recipe).items() if key not in {"name", "output"}}
    lines = [HEADER, "# Every setting of a run.   compress run recipe=recipe.yaml", *notes, "defaults:"]
    lines += [f"  - {entry}" for entry in (*named, *overrides)]
    return "\n".join([*lines, dump(values)])


def _sources(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the settings that Python can hand over, and their values."""
    for name, part in (("data", recipe.data), ("teacher", recipe.teacher)):
        for field in fields(part):
            if isinstance(value := getattr(part, field.name), str):
                yield f"{name}.{field.name}", value


def chosen(recipe: Recipe) -> dict[str, Any]:
    """Return the option that a recipe has for each group; a list of them where the group takes several."""
    return {
        group: [options.name_of(part) for part in held.values()] if options.several else options.name_of(held)
        for group, options in GROUPS.items()
        for held in (slot(recipe, group),)
    }


def _written(value: Any) -> Any:
    """Return settings as plain values, as a recipe file holds them: an enumeration's member by its name."""
    if is_dataclass(value):
        return {field.name: _written(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, PathLike) else value
