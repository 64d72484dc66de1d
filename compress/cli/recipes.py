"""Recipe files that a command chooses, and those that they build on."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.cli import recipe_files, recipe_paths
from compress.cli.limits import MOST_INCLUDED, SPECIAL
from compress.cli.modules import Modules
from compress.cli.options import OptionLookup
from compress.cli.recipe_files import RecipeFile
from compress.cli.refusals import Refusals
from compress.errors import RecipeError
from compress.registry import GROUPS, SEVERAL, is_open
from compress.settings import nearest


@dataclass(frozen=True)
class RecipeChoices:
    """What a recipe file chooses, in the order in which it says so."""

    file: RecipeFile
    includes: list[str] = field(default_factory=list)  # recipes that it builds on, by their stored names
    options: dict[str, Any] = field(default_factory=dict)  # group to option, or to several
    named: list[dict[str, str]] = field(default_factory=list)  # options under a name of their own

    def node(self, *, values: bool = True) -> dict[str, Any]:
        """Return the file as Hydra takes it: what overrides comes last in the defaults list."""
        overrides = [{f"override /{group}": option} for group, option in self.options.items()]
        body = {"recipe": self.file.path.stem, **self.file.values} if values else {}
        return {"defaults": [*self.includes, *self.named, "_self_", *overrides], **body}

    def without(self, group: str, dropped: set[str]) -> RecipeChoices:
        """Return the choices without values for options that the command line does not choose."""
        *above, last = group.split("/")
        values = deepcopy(dict(self.file.values))
        owner: Any = values
        for key in above:
            owner = owner.get(key) if isinstance(owner, Mapping) else None
        held = owner.get(last) if isinstance(owner, Mapping) else None
        if not isinstance(held, Mapping) or not dropped & set(held):
            return self
        left = {name: value for name, value in held.items() if name not in dropped}
        owner.pop(last)
        if left:
            owner[last] = left
        return replace(self, file=replace(self.file, values=values))


@dataclass
class Recipes:
    """Reads recipe files."""

    refusals: Refusals
    options: OptionLookup
    modules: Modules
    chosen: dict[str, RecipeChoices] = field(default_factory=dict)  # by stored name; those built on come first
    files: dict[str, str] = field(default_factory=dict)  # stored name to path, of recipes given as files
    _built_on: set[str] = field(default_factory=set)  # stored names of the recipe being read and those it builds on

    def stored_name(self, recipe: str, folder: Path = Path()) -> str:
        """Return the name under which a recipe is stored; a file gets one that Hydra can read."""
        if not recipe.endswith(recipe_paths.ENDINGS):
            file = recipe_paths.known().get(recipe)
            if file is None or re.fullmatch(r"[\w-]+", recipe):
                return recipe
            path = file  # its name has signs that mean something to Hydra
        else:
            path = folder / recipe_paths.path_of(recipe)
        name = f"{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{zlib.crc32(str(recipe_paths.resolved(path)).encode()):08x}"
        self.files[name] = str(path)
        return name

    def read(self, name: str, shown: str, setting: str, within: tuple[str, ...] = ()) -> bool:
        """Read a recipe and those that it builds on; note it under its stored name."""
        path = Path(self.files[name]) if name in self.files else recipe_paths.known().get(name)
        if not within:
            self._built_on = set()
        if path is None:
            self.refusals.refuse(
                setting, shown, "is not a known recipe", nearest(name, recipe_paths.known()), blame="recipe"
            )
        elif name in within:
            self.refusals.refuse(setting, shown, "includes itself", blame="recipe")
        elif name in self._built_on:
            self.refusals.refuse(setting, shown, "is included twice", "Name it once.", blame="recipe")
        elif len(self._built_on) > MOST_INCLUDED:
            self.refusals.refuse(setting, shown, f"includes more than {MOST_INCLUDED} recipes", blame="recipe")
        else:
            self._built_on.add(name)
            try:
                choices = RecipeChoices(recipe_files.read(path, is_open))
            except RecipeError as error:
                self.refusals.faults += error.faults
                self.refusals.blamed.add("recipe")
                return False
            before = len(self.refusals.faults)
            if "uses" in choices.file.values:
                self.modules.use_of_file(choices.file)
            for index, entry in enumerate(choices.file.defaults):
                self._default(entry, choices.file.line(f"defaults.{index}"), choices, (*within, name))
            self.chosen[name] = choices
            return len(self.refusals.faults) == before
        return False

    def _default(self, entry: Any, line: str, choices: RecipeChoices, within: tuple[str, ...]) -> None:
        """Read one entry of a defaults list into ``choices``."""
        if entry == "_self_":
            return
        if isinstance(entry, str):
            entry = {"recipe": entry}
        key, chosen = next(iter(entry.items())) if isinstance(entry, Mapping) and len(entry) == 1 else ("", None)
        match = re.fullmatch(r"(?:override\s+)?/?([\w./]+)(@[\w.]+)?", str(key))
        if match is None:
            self.refusals.refuse(
                f"{line}: defaults", entry, "is not a choice", "Write for example `- override /prune: [heads]`."
            )
            return
        group, package = match[1].replace(".", "/"), match[2]
        if group == "recipe":
            name = self.stored_name(str(chosen), choices.file.path.parent)
            if self.read(name, str(chosen), f"{line}: recipe", within):
                choices.includes.append(name)
        elif group not in GROUPS:
            self.refusals.refuse(f"{line}: {group}", chosen, "is not a group of choices", nearest(group, GROUPS))
        elif package and not _is_own_name(group, package):
            rule = f"puts an option outside {group.replace('/', '.')}"
            remedy = f"Write for example `/{group}@{group.replace('/', '.')}.own_name: {chosen}`."
            self.refusals.refuse(f"{line}: {match[0]}", chosen, rule, remedy)
        elif package and not isinstance(chosen, str):
            self.refusals.refuse(f"{line}: {match[0]}", chosen, "must be one option, because it has one name")
        elif self.options.exist(group, chosen, f"{line}: {group}"):
            if package:
                choices.named.append({f"/{group}{package}": str(chosen)})
            else:
                choices.options[group] = chosen


def _is_own_name(group: str, package: str) -> bool:
    """Return whether ``@prune.mine`` is a name of your own for an option of the group ``prune``."""
    above, _, name = package.removeprefix("@").rpartition(".")
    return group in SEVERAL and above == group.replace("/", ".") and not SPECIAL.fullmatch(name)
