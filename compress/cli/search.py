"""The words of ``compress search``: those of a recipe, and those of the target and the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import msgspec
import yaml

from compress.cli import compose
from compress.describe import hints
from compress.errors import Fault, RecipeError
from compress.run.recipe import Recipe
from compress.search.settings import Search, SearchTarget
from compress.settings import Settings, nearest

_KINDS: dict[Any, str] = {list[str]: "a list, as [bert,cnn]", bool: "true or false", int: "a whole number"}
PARTS: dict[str, type[Settings]] = {"target": SearchTarget, "search": Search}
BASE = "search"  # the recipe that is meant where none is named: all rows, no unlabelled ones
DECIDED = ("student", "prepare", "prune", "quantize", "export", "exit")
"""What a search chooses itself."""


def searching(words: Sequence[str]) -> tuple[Recipe, SearchTarget, Search]:
    """Return what the words stand for: the recipe that all trials share, the target, and how much is tried.

    Raises RecipeError with all that is wrong with them.
    """
    own = {word: word.partition("=")[0].partition(".")[0] for word in words}
    faults: list[Fault] = []
    values: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for word, part in own.items():
        if part in PARTS:
            faults += _take(word, PARTS[part], values[part])
        elif part.lstrip("+~").partition("/")[0] in DECIDED or word.startswith("distill/losses"):
            rule = "is what a search decides"
            faults.append(Fault(part, None, rule, "Leave it out, or use compress run; see search.students."))
    if faults:
        raise RecipeError(faults)
    given = [word for word, part in own.items() if part not in PARTS]
    named = any(own[word].strip() == "recipe" for word in given)
    recipe = compose.compose(given if named else [f"recipe={BASE}", *given])
    return recipe, SearchTarget(**values["target"]), Search(**values["search"])


def _take(word: str, part: type[Settings], values: dict[str, Any]) -> Iterator[Fault]:
    """Set the value that a word gives; yield what is wrong with it."""
    path, equals, text = word.partition("=")
    name = path.partition(".")[2]
    known = [field.name for field in fields(part)]
    if name not in known or not equals:
        yield Fault(path, None, "is not a setting", nearest(name, known))
        return
    hint = hints(part)[name]
    try:
        values[name] = msgspec.convert(yaml.safe_load(text), hint, strict=False)
    except (yaml.YAMLError, msgspec.ValidationError):
        yield Fault(path, text, f"must be {_KINDS.get(hint, 'a number')}")
