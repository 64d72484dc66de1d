"""Make sense of the words of a command line and of recipe files, and say what is wrong with them.

Knows what can be chosen, but not Hydra: how one word is parsed is given to it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress import recipe_files
from compress.choices import GROUPS, SEVERAL, guess
from compress.data.names import folder_instead, no_data_set
from compress.errors import Fault, RecipeError
from compress.recipe_files import RecipeFile

QUICKSTART = "quickstart"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Word:
    """One word of a command line, ``setting=value``; in a sweep it has several values."""

    setting: str  # a path, or a group of choices
    text: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]  # one word for each value

    @property
    def is_choice(self) -> bool:
        """Whether it chooses an option of a group rather than sets a value."""
        return self.setting in GROUPS or self.setting == "recipe"

    @property
    def is_hydra(self) -> bool:
        """Whether it is meant for Hydra, as ``hydra/launcher=joblib``."""
        return self.setting.startswith(("hydra.", "hydra/"))


@dataclass(frozen=True)
class Choices:
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

    def without(self, group: str, dropped: set[str]) -> Choices:
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
class Reading:
    """The words that could be read, the recipe files and hub data sets they name, and every fault so far."""

    parse: Callable[[str], Word | None]
    sweep: bool = False
    words: list[Word] = field(default_factory=list)
    recipes: dict[str, Choices] = field(default_factory=dict)  # by stored name; those built on come first
    hub_ids: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    blamed: set[str] = field(default_factory=set)  # settings whose parts would be blamed wrongly now

    def read(self, texts: Sequence[str]) -> None:
        """Read the words of a command line; without ``recipe=``, the quickstart is meant."""
        for text in texts:
            word = self._word(text.strip())
            if word is not None:
                self.words.append(word)
        if "recipe" not in self.blamed and not any(word.setting == "recipe" for word in self.words):
            self._recipe(QUICKSTART, QUICKSTART, "recipe", ())
        for word in self.words:
            if word.setting in SEVERAL:
                chosen = {str(option) for value in word.values for option in (value or ())}
                dropped = set(GROUPS[word.setting]) - chosen
                self.recipes = {name: found.without(word.setting, dropped) for name, found in self.recipes.items()}

    def refuse(self, setting: str, value: object, rule: str, remedy: str = "", *, blame: str = "") -> None:
        """Note a fault; settings from ``blame`` on down are not looked at any more."""
        self.faults.append(Fault(setting, value, rule, remedy))
        if blame:
            self.blamed.add(blame)

    def _word(self, text: str) -> Word | None:
        key, equals, value = text.partition("=")
        key = key.strip()
        if key.startswith("~"):
            key = key.lstrip("~")
            remedy = f"Write {key}=[] for none." if key in SEVERAL else f"Where it may be empty, write {key}=null."
            self.refuse(key, None, "cannot be removed, only set", remedy)
            return None
        key = key.lstrip("+")  # Hydra's way around a schema
        if not equals or not re.fullmatch(r"[\w./-]+", key):
            remedy = f"Write {key}=VALUE." if key and not equals else "For example seed=7."
            self.refuse(text, None, "is not of the form setting=value", remedy)
            return None
        if key.startswith(("hydra.", "hydra/")) and not self.sweep:
            self.refuse(key, value, "means something in a sweep only", "Add -m.")
            return None
        group = key.replace(".", "/")
        chooses = group in GROUPS or group == "recipe"
        if group in SEVERAL and value in {"null", ""}:
            value = "[]"
        if group == "recipe" and not value.startswith(("[", "choice(")):
            word = self._parsed(group, ",".join(map(self._stored_name, value.split(","))), value)
        else:
            word = self._parsed(group if chooses else key, value, value)
        if word is None:
            return None
        if len(word.values) > 1 and not self.sweep:
            brackets = f"Write {key}=[{value}], or add" if group in SEVERAL else "Write one, or add"
            remedy = f"{brackets} -m to run each of them."
            self.refuse(key, value, "has several values", remedy, blame=word.setting.replace("/", "."))
            return None
        known = [self._known(group, one, group) for one in word.values] if chooses else []
        return word if all(known) else None

    def _parsed(self, key: str, value: str, given: str) -> Word | None:
        word = self.parse(f"{key}={value}")
        if word is None and not value.startswith(("[", "{", "'", '"')) and "${" not in value:
            word = self.parse(f"{key}={quoted(value)}")  # a path with signs that mean something to Hydra
        if word is None:
            remedy = "Close every bracket and quote, as in [a,b] or 'a, b'."
            self.refuse(key, given, "cannot be read", remedy, blame=key.replace("/", "."))
            return None
        return word

    def _known(self, group: str, chosen: Any, said: str) -> bool:
        """Say whether what is chosen exists; a recipe's file is read, a hub id becomes a data set."""
        if group == "recipe":
            name = "null" if chosen is None else str(chosen)
            return self._recipe(name, self._files.get(name, name), said, ())
        if group in SEVERAL:
            options = chosen if isinstance(chosen, list) else [] if chosen is None else [chosen]
        else:
            options = ["null" if chosen is None else chosen]
        good = True
        for option in options:
            if isinstance(option, str) and option in GROUPS[group]:
                continue
            if group == "data" and (reason := no_data_set(str(option)) or folder_instead(str(option))):
                self.refuse(said, option, *reason, blame="data")
                good = False
                continue
            if group == "data" and isinstance(option, str) and HUB_ID.fullmatch(option):
                self.hub_ids.append(option)
                continue
            remedy = guess(str(option), GROUPS[group])
            if group == "data":
                remedy += " Any other data set of the hub: data=hub data.path=ID."
            self.refuse(said, option, "is not a choice", remedy, blame=group.replace("/", "."))
            good = False
        return good

    _files: dict[str, str] = field(default_factory=dict)  # stored name to path, of recipes given as files

    def _stored_name(self, recipe: str, folder: Path = Path()) -> str:
        """Return the name under which a recipe is stored; a file gets one that Hydra can read."""
        recipe = recipe.strip().strip("'\"")
        if not recipe.endswith(recipe_files.ENDINGS):
            return recipe
        path = folder / Path(recipe).expanduser()
        name = f"{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{zlib.crc32(str(path.resolve()).encode()):08x}"
        self._files[name] = str(path)
        return name

    def _recipe(self, name: str, shown: str, said: str, within: tuple[Path, ...]) -> bool:
        """Read a recipe and those that it builds on; note it under its stored name."""
        path = Path(self._files[name]) if name in self._files else recipe_files.known().get(name)
        if path is None:
            self.refuse(said, shown, "is no recipe", guess(name, recipe_files.known()), blame="recipe")
        elif path in within:
            self.refuse(said, shown, "builds on itself", blame="recipe")
        else:
            try:
                choices = Choices(recipe_files.read(path))
            except RecipeError as error:
                self.faults += error.faults
                self.blamed.add("recipe")
                return False
            before = len(self.faults)
            for index, entry in enumerate(choices.file.defaults):
                self._default(entry, choices.file.line(f"defaults.{index}"), choices, (*within, path))
            self.recipes[name] = choices
            return len(self.faults) == before
        return False

    def _default(self, entry: Any, line: str, choices: Choices, within: tuple[Path, ...]) -> None:
        """Read one entry of a defaults list into ``choices``."""
        if entry == "_self_":
            return
        if isinstance(entry, str):
            entry = {"recipe": entry}
        key, chosen = next(iter(entry.items())) if isinstance(entry, Mapping) and len(entry) == 1 else ("", None)
        found = re.fullmatch(r"(?:override\s+)?/?([\w./]+)(@[\w.]+)?", str(key))
        if found is None:
            self.refuse(
                f"{line}: defaults", entry, "is not a choice", "Write for example `- override /prune: [heads]`."
            )
            return
        group, package = found[1].replace(".", "/"), found[2]
        if group == "recipe":
            name = self._stored_name(str(chosen), choices.file.path.parent)
            if self._recipe(name, str(chosen), f"{line}: recipe", within):
                choices.includes.append(name)
        elif group not in GROUPS:
            self.refuse(f"{line}: {group}", chosen, "is no group of choices", guess(group, GROUPS))
        elif self._known(group, chosen, f"{line}: {group}"):
            if package:
                choices.named.append({f"/{group}{package}": str(chosen)})
            else:
                choices.options[group] = chosen


def quoted(text: str) -> str:
    """Return ``text`` as one value for Hydra, whatever signs are in it."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"
