"""The help of `compress run`: how to say what, everything that can be chosen, every setting with its default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields

from compress.describe import Described, describe, summary
from compress.plugins import use_installed
from compress.registry import GROUPS, SEVERAL
from compress.run.recipe import Recipe
from compress.run.recipe_yaml import chosen
from compress.settings import Settings

WIDTH = 116
COLUMN = 42


def choices_and_settings() -> str:
    """Return what can be chosen, then every setting, in the order of the work."""
    list(use_installed())  # a run reports what cannot be used
    return "\n".join([*_choices(), "", *_settings()])


def _choices() -> Iterator[str]:
    defaults = chosen(Recipe())
    yield "choices (* marks the defaults):"
    for group, options in GROUPS.items():
        several = f"{group}=[NAME,…]" if group in SEVERAL else f"{group}=NAME"
        yield f"\n  {several}"
        for name, option in options.items():
            if isinstance(option, type):
                mark = "*" if name in _listed(defaults[group]) else " "
                yield from _entry(f"  {mark} {name}", summary(option))
        presets = [name for name, option in options.items() if not isinstance(option, type)]
        if presets:
            yield from _entry(f"    {', '.join(presets)}", "data sets of the hub that need no further settings")
        if group == "data":
            yield from _entry("    OWNER/NAME", "any other data set of the hub, by its id")


def _settings() -> Iterator[str]:
    yield "settings, as setting=default:"
    recipe = Recipe()
    own = [setting for setting in describe(Recipe) if "." not in setting.path]
    yield ""
    yield from _lines(own)
    for field in fields(Recipe):
        part = getattr(recipe, field.name)
        groups = {group: options for group, options in GROUPS.items() if group.split("/")[0] == field.name}
        if isinstance(part, Settings) and field.name not in groups:
            yield f"\n  {summary(part)}"
            yield from _lines(describe(type(part), field.name))
        for group, options in groups.items():
            yield from _group(group, [(name, option) for name, option in options.items() if isinstance(option, type)])


def _group(group: str, options: list[tuple[str, type[Settings]]]) -> Iterator[str]:
    """Yield the settings of a group's options; those that they all share once, before the others."""
    path = group.replace("/", ".")
    bases = {option.__mro__[1] for _, option in options}
    common = {field.name for field in fields(bases.pop())} if len(bases) == 1 < len(options) else set()
    where, choice = (f"{path}.NAME", f"{group}=[NAME]") if group in SEVERAL else (path, f"{group}=NAME")
    if common:
        yield f"\n  with every {choice}"
        yield from _lines(setting for setting in describe(options[0][1], where) if _name(setting) in common)
    for name, option in options:
        where, choice = (f"{path}.{name}", f"{group}=[{name}]") if group in SEVERAL else (path, f"{group}={name}")
        own = [setting for setting in describe(option, where) if _name(setting) not in common]
        if own:
            yield f"\n  with {choice}: {summary(option)}"
            yield from _lines(own)


def _name(setting: Described) -> str:
    return setting.path.rpartition(".")[2]


def _listed(chosen: str | list[str]) -> list[str]:
    return [chosen] if isinstance(chosen, str) else chosen


def _lines(settings: Iterable[Described]) -> Iterator[str]:
    for setting in settings:
        kind = (
            ""
            if all(word in setting.comment for word in setting.kind.split("|")) and "|" in setting.kind
            else f"{setting.kind}: "
        )
        yield from _entry(f"  {setting.path}={setting.default}", f"{kind}{setting.comment}".removesuffix(": "))


def _entry(left: str, right: str) -> Iterator[str]:
    """Yield a line with two columns, wrapped."""
    wrapped = textwrap.wrap(right, WIDTH - COLUMN - 2) or [""]
    if len(left) >= COLUMN:
        yield f"  {left}"
    else:
        yield f"  {left:<{COLUMN}}{wrapped.pop(0)}".rstrip()
    for line in wrapped:
        yield f"  {'':<{COLUMN}}{line}".rstrip()
