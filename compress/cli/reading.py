"""Make sense of the words of a command line and of recipe files, and say what is wrong with them.

Knows what can be chosen, but not Hydra: how one word is parsed is given to it.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.cli import recipe_files
from compress.cli.limits import (
    LONGEST_WORD,
    MOST_INCLUDED,
    MOST_JOBS,
    SPECIAL,
    Why,
    inserted,
    is_hydras,
    special_key,
    texts_in,
    too_many_copies,
    too_nested,
    unprintable,
)
from compress.cli.recipe_files import RecipeFile
from compress.data.names import folder_instead, no_data_set
from compress.errors import Fault, RecipeError
from compress.plugins import use
from compress.registry import GROUPS, SEVERAL, is_open
from compress.settings import nearest

QUICKSTART = "quickstart"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PLUGINS = ("hydra/launcher", "hydra/sweeper")  # what of Hydra's own can be chosen; their parameters have dots


@dataclass(frozen=True)
class Word:
    """One word of a command line, ``setting=value``; in a sweep it has several values."""

    setting: str  # a path, or a group of choices
    text: str
    values: tuple[Any, ...]  # all of them, unless there are more than a sweep may have
    texts: tuple[str, ...]  # one word for each value
    count: int = 1  # of values; 0 where it cannot be told
    searched: bool = False  # whether the values are the ends of an interval
    shown: tuple[str, ...] = ()  # `texts` as a user writes them, where Hydra takes them otherwise

    @property
    def is_choice(self) -> bool:
        """Whether it chooses an option of a group rather than sets a value."""
        return self.setting in GROUPS or self.setting == "recipe"

    @property
    def is_hydra(self) -> bool:
        """Whether it is meant for Hydra, as ``hydra/launcher=joblib``."""
        return is_hydras(self.setting)

    @property
    def given(self) -> tuple[str, ...]:
        """One word for each value, as a user may write it."""
        return self.shown or self.texts


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
    trusted: bool = True  # whether recipe files may name code to import
    words: list[Word] = field(default_factory=list)
    recipes: dict[str, Choices] = field(default_factory=dict)  # by stored name; those built on come first
    hub_ids: list[str] = field(default_factory=list)
    used: dict[str, None] = field(default_factory=dict)  # imported modules, in order
    faults: list[Fault] = field(default_factory=list)
    blamed: set[str] = field(default_factory=set)  # settings whose parts would be blamed wrongly now

    def read(self, texts: Sequence[str]) -> None:
        """Read the words of a command line; without ``recipe=``, the quickstart is meant."""
        self._given = texts
        read: dict[int, Word | None] = {}
        for first in (("uses",), ("recipe",), ()):  # other words may choose what the modules register
            for place, text in enumerate(texts):
                if place not in read and (not first or text.strip().lstrip("+").partition("=")[0].strip() in first):
                    read[place] = self._word(text.strip())
        self.words += [word for _, word in sorted(read.items(), key=lambda item: item[0]) if word is not None]
        jobs = math.prod(word.count for word in self.words)
        if self.sweep and jobs > MOST_JOBS:
            rule = f"would be {jobs:,} runs, and a sweep has at most {MOST_JOBS:,}"
            self.refuse("-m", None, rule, "Give fewer values, or split them into several sweeps.")
        if "recipe" not in self.blamed and not any(word.setting == "recipe" for word in self.words):
            self._recipe(QUICKSTART, QUICKSTART, "recipe", ())
        for word in self.words:
            if word.setting in SEVERAL:
                chosen = {str(option) for value in word.values for option in (value or ())}
                dropped = set(GROUPS[word.setting]) - chosen
                self.recipes = {name: found.without(word.setting, dropped) for name, found in self.recipes.items()}
        files = (text for choices in self.recipes.values() for text in texts_in(choices.file.values))
        if too_many_copies([*files, *(word.text for word in self.words)]):
            rule = "insert each other so often that their length is unbounded"
            self.refuse("${…}", None, rule, "Write some of them out.")

    def refuse(self, setting: str, value: object, rule: str, remedy: str = "", *, blame: str = "") -> None:
        """Note a fault; settings from ``blame`` on down are not looked at any more."""
        self.faults.append(Fault(setting, value, rule, remedy))
        if blame:
            self.blamed.add(blame)

    def _word(self, text: str) -> Word | None:
        key, equals, value = text.partition("=")
        key = key.strip()
        shown = key if key.isprintable() and len(key) <= 80 else f"{key[:80]!r}"
        if why := self._unreadable(text):
            self.refuse(shown, None, *why)
            return None
        if is_hydras(key):
            return self._hydras(key, value)
        if key.startswith("~"):
            key = key.lstrip("~")
            remedy = f"Write {key}=[] for none." if key in SEVERAL else f"Where it may be empty, write {key}=null."
            self.refuse(key, None, "cannot be removed, only set", remedy)
            return None
        key = key.lstrip("+")  # Hydra's way around a schema
        if not equals or not re.fullmatch(r"[\w./-]+", key):
            remedy = f"Write {shown}=VALUE." if key and not equals else "For example seed=7."
            self.refuse(text if text.isprintable() else repr(text), None, "is not of the form setting=value", remedy)
            return None
        group = key.replace(".", "/")
        chooses = group in GROUPS or group == "recipe"
        if group in SEVERAL and value in {"null", ""}:
            value = "[]"
        if group == "recipe" and not value.startswith("["):
            word = self._recipes(value)
        else:
            word = self._parsed(group if chooses else key, value, value)
        if word is None:
            return None
        if special := next((part for part in re.split("[./]", key) if SPECIAL.fullmatch(part)), None) or (
            next(filter(None, (special_key(one, free=is_open(key.split("."))) for one in word.values)), None)
        ):
            self.refuse(key, None, f"names code to call by {special}, which no recipe may", "Leave it out.", blame=key)
            return None
        if not word.count:
            rule = "has no values, or too many to count"
            self.refuse(key, value, rule, "Write a,b,c or range(FROM,TO,STEP).", blame=key)
            return None
        if word.count > 1 and not self.sweep:
            brackets = f"Write {key}=[{value}], or add" if group in SEVERAL else "Write one, or add"
            remedy = f"{brackets} -m to run each of them."
            self.refuse(key, value, "has several values", remedy, blame=word.setting.replace("/", "."))
            return None
        if key == "uses":
            self._use(word.values[0], "uses")
        known = [self._known(group, one, group) for one in word.values] if chooses else []
        return word if all(known) else None

    @staticmethod
    def _unreadable(text: str) -> Why | None:
        """Return why a word is not even looked at."""
        if len(text) > LONGEST_WORD:
            rule = f"is longer than {LONGEST_WORD} characters"
            return rule, "Put it into a recipe file: compress run recipe=FILE.yaml."
        if too_nested(text):
            return "nests too many brackets", "Close every bracket and quote, as in [a,b] or 'a, b'."
        return unprintable(text) or inserted(text)

    def _hydras(self, key: str, value: str) -> Word | None:
        """Read a word for Hydra: a plugin's name or a plain parameter of it, and nothing else."""
        parts = key.split(".")
        names = key in PLUGINS
        sets = len(parts) > 2 and "/".join(parts[:2]) in PLUGINS and all(part.isidentifier() for part in parts)
        if not (names or sets) or any(map(SPECIAL.fullmatch, parts)):
            rule = "belongs to Hydra; of its settings only launcher, sweeper and their parameters can be set"
            self.refuse(key, value, rule, "Write hydra/launcher=NAME or hydra.launcher.PARAMETER=VALUE.")
            return None
        if not self.sweep:
            self.refuse(key, value, "has no effect outside a sweep", "Add -m.")
            return None
        word = self._parsed(key, value, value)
        plain = str if names else str | int | float | bool | None
        if (word is not None and not (len(word.values) == 1 and isinstance(word.values[0], plain))) or "${" in value:
            self.refuse(key, value, "must be one name" if names else "must be one plain value, not a list or ${…}")
            return None
        return word

    def _recipes(self, value: str) -> Word | None:
        """Read the names and files after ``recipe=``; what Hydra takes are the names under which they are stored."""
        inner = re.fullmatch(r"choice\((.*)\)", value)
        given = [value] if recipe_files.is_file(value) else _listed(inner[1] if inner else value)
        stored = [self._stored_name(recipe) for recipe in given]
        word = self._parsed("recipe", ",".join(stored), value)
        if word is None or len(word.texts) != len(given):
            return word
        return replace(word, shown=tuple(f"recipe={_as_listed(recipe)}" for recipe in given))

    def _parsed(self, key: str, value: str, given: str) -> Word | None:
        free = is_open(key.split("."))
        if free and (texts := recipe_files.flat_mapping(value)) is not None:  # Hydra knows no quotes around keys
            text = f"{key}={quoted(value)}"
            return Word(key, text, (texts,), (text,), shown=(f"{key}={value}",))
        word = self.parse(f"{key}={value}")
        if word is None and not value.startswith(("[", "{", "'", '"')) and "${" not in value:
            word = self.parse(f"{key}={quoted(value)}")  # a path with signs that mean something to Hydra
        if word is None:
            remedy = _in_a_file(key) if free else "Close every bracket and quote, as in [a,b] or 'a, b'."
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
            remedy = nearest(str(option), GROUPS[group])
            if group == "data":
                remedy += " Any other data set of the hub: data=hub data.path=ID."
            self.refuse(said, option, "is not a choice", remedy, blame=group.replace("/", "."))
            good = False
        return good

    _files: dict[str, str] = field(default_factory=dict)  # stored name to path, of recipes given as files

    def _stored_name(self, recipe: str, folder: Path = Path()) -> str:
        """Return the name under which a recipe is stored; a file gets one that Hydra can read."""
        if not recipe.endswith(recipe_files.ENDINGS):
            file = recipe_files.known().get(recipe)
            if file is None or re.fullmatch(r"[\w-]+", recipe):
                return recipe
            path = file  # its name has signs that mean something to Hydra
        else:
            path = folder / recipe_files.path_of(recipe)
        name = f"{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{zlib.crc32(str(recipe_files.resolved(path)).encode()):08x}"
        self._files[name] = str(path)
        return name

    def _recipe(self, name: str, shown: str, said: str, within: tuple[str, ...]) -> bool:
        """Read a recipe and those that it builds on; note it under its stored name."""
        path = Path(self._files[name]) if name in self._files else recipe_files.known().get(name)
        if not within:
            self._built_on = set()
        if path is None:
            self.refuse(said, shown, "is not a known recipe", nearest(name, recipe_files.known()), blame="recipe")
        elif name in within:
            self.refuse(said, shown, "includes itself", blame="recipe")
        elif name in self._built_on:
            self.refuse(said, shown, "is included twice", "Name it once.", blame="recipe")
        elif len(self._built_on) > MOST_INCLUDED:
            self.refuse(said, shown, f"includes more than {MOST_INCLUDED} recipes", blame="recipe")
        else:
            self._built_on.add(name)
            try:
                choices = Choices(recipe_files.read(path, is_open))
            except RecipeError as error:
                self.faults += error.faults
                self.blamed.add("recipe")
                return False
            before = len(self.faults)
            if "uses" in choices.file.values:
                self._use_of_file(choices.file)
            for index, entry in enumerate(choices.file.defaults):
                self._default(entry, choices.file.line(f"defaults.{index}"), choices, (*within, name))
            self.recipes[name] = choices
            return len(self.faults) == before
        return False

    _given: Sequence[str] = ()

    def _use(self, modules: Any, setting: str) -> None:
        """Import modules; anything but a list of texts is refused like any value of a wrong type."""
        names = [name for name in modules if isinstance(name, str)] if isinstance(modules, list) else []
        faults = list(use(names, setting))
        self.faults += faults
        if faults:
            self.blamed.add("uses")
        self.used |= dict.fromkeys(names)

    def _use_of_file(self, file: RecipeFile) -> None:
        """Import the modules that a recipe file names, unless it came with a model or with data."""
        modules = file.values["uses"]
        setting = f"{file.line('uses')}: uses"
        if isinstance(modules, list) and set(map(str, modules)) <= self.used.keys():
            return
        texts = [*(text.partition("=")[2].strip("'\"") for text in self._given), *texts_in(file.values)]
        if self.trusted and not recipe_files.came_with(file.path, texts):
            self._use(modules, setting)
            return
        rule = "names code to import, which a file that came with a model or data may not"
        remedy = f"If you trust it: uses=[{','.join(map(str, modules))}] on the command line."
        self.refuse(setting, modules, rule, remedy, blame="recipe")

    _built_on: set[str] = field(default_factory=set)  # stored names of the recipe being read and those it builds on

    def _default(self, entry: Any, line: str, choices: Choices, within: tuple[str, ...]) -> None:
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
            self.refuse(f"{line}: {group}", chosen, "is not a group of choices", nearest(group, GROUPS))
        elif package and not _is_own_name(group, package):
            rule = f"puts an option outside {group.replace('/', '.')}"
            remedy = f"Write for example `/{group}@{group.replace('/', '.')}.own_name: {chosen}`."
            self.refuse(f"{line}: {found[0]}", chosen, rule, remedy)
        elif package and not isinstance(chosen, str):
            self.refuse(f"{line}: {found[0]}", chosen, "must be one option, because it has one name")
        elif self._known(group, chosen, f"{line}: {group}"):
            if package:
                choices.named.append({f"/{group}{package}": str(chosen)})
            else:
                choices.options[group] = chosen


def _in_a_file(setting: str) -> str:
    """Return a sentence that says how a recipe file gives texts of any kind to a setting with free keys."""
    first, *others = setting.split(".")
    nested = '{"a, b": x}'
    for name in reversed(others):
        nested = f"{{{name}: {nested}}}"
    return f"Close every bracket and quote, or put it into a recipe file: `{first}: {nested}`."


def quoted(text: str) -> str:
    """Return ``text`` as one value for Hydra, whatever signs are in it."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def _is_own_name(group: str, package: str) -> bool:
    """Return whether ``@prune.mine`` is a name of your own for an option of the group ``prune``."""
    above, _, name = package.removeprefix("@").rpartition(".")
    return group in SEVERAL and above == group.replace("/", ".") and not SPECIAL.fullmatch(name)


_QUOTED = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,]*))\s*(?:,|$)""")


def _listed(text: str) -> list[str]:
    """Return what stands between commas; quotes keep a comma inside, and are taken away."""
    found: list[str] = []
    place = 0
    while place <= len(text):
        match = _QUOTED.match(text, place)
        if match is None:  # a quote with more behind it
            return [*found, text[place:].strip()]
        single, double, bare = match.groups()
        held = single if single is not None else double
        found.append(bare.strip() if held is None else re.sub(r"\\(.)", r"\1", held))
        place = match.end() if match[0].endswith(",") else len(text) + 1
    return found


def _as_listed(text: str) -> str:
    """Return ``text`` so that `_listed` gives it back."""
    bare = _listed(text) == [text]
    return text if bare else "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"
