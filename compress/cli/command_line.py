"""Make sense of the words of a command line, and say what is wrong with them.

Knows what can be chosen, but not Hydra: how one word is parsed is given to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from compress.cli import recipe_files, recipe_paths
from compress.cli.limits import (
    LONGEST_WORD,
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
from compress.cli.modules import Modules
from compress.cli.options import OptionLookup
from compress.cli.recipes import Recipes
from compress.cli.refusals import Refusals
from compress.cli.words import PLUGINS, Word, as_listed, listed, quoted
from compress.registry import GROUPS, SEVERAL, is_open

QUICKSTART = "quickstart"


class CommandLine:
    """The words that could be read, the recipe files and hub data sets they name, and every fault so far."""

    def __init__(self, parse: Callable[[str], Word | None], *, sweep: bool = False, trusted: bool = True) -> None:
        """``trusted`` says whether recipe files may name code to import."""
        self.parse, self.sweep = parse, sweep
        self.words: list[Word] = []
        self.refusals = Refusals()
        self.options = OptionLookup(self.refusals)
        self.modules = Modules(self.refusals, trusted)
        self.recipes = Recipes(self.refusals, self.options, self.modules)
        self._refuse = self.refusals.refuse

    def read(self, texts: Sequence[str]) -> None:
        """Read the words of a command line; without ``recipe=``, the quickstart is meant."""
        self.modules.given = texts
        read: dict[int, Word | None] = {}
        for first in (("uses",), ("recipe",), ()):  # other words may choose what the modules register
            for place, text in enumerate(texts):
                if place not in read and (not first or text.strip().lstrip("+").partition("=")[0].strip() in first):
                    read[place] = self._word(text.strip())
        self.words += [word for _, word in sorted(read.items(), key=lambda item: item[0]) if word is not None]
        jobs = math.prod(word.count for word in self.words)
        if self.sweep and jobs > MOST_JOBS:
            rule = f"would be {jobs:,} runs, and a sweep has at most {MOST_JOBS:,}"
            self._refuse("-m", None, rule, "Give fewer values, or split them into several sweeps.")
        if "recipe" not in self.refusals.blamed and not any(word.setting == "recipe" for word in self.words):
            self.recipes.read(QUICKSTART, QUICKSTART, "recipe")
        for word in self.words:
            if word.setting in SEVERAL:
                chosen = {str(option) for value in word.values for option in (value or ())}
                dropped = set(GROUPS[word.setting]) - chosen
                kept = {name: choices.without(word.setting, dropped) for name, choices in self.recipes.chosen.items()}
                self.recipes.chosen = kept
        files = (text for choices in self.recipes.chosen.values() for text in texts_in(choices.file.values))
        if too_many_copies([*files, *(word.text for word in self.words)]):
            rule = "insert each other so often that their length is unbounded"
            self._refuse("${…}", None, rule, "Write some of them out.")

    def _word(self, text: str) -> Word | None:
        key, equals, value = text.partition("=")
        key = key.strip()
        shown = key if key.isprintable() and len(key) <= 80 else f"{key[:80]!r}"
        if why := self._unreadable(text):
            self._refuse(shown, None, *why)
            return None
        if is_hydras(key):
            return self._hydras(key, value)
        if key.startswith("~"):
            key = key.lstrip("~")
            remedy = f"Write {key}=[] for none." if key in SEVERAL else f"Where it may be empty, write {key}=null."
            self._refuse(key, None, "cannot be removed, only set", remedy)
            return None
        key = key.lstrip("+")  # Hydra's way around a schema
        if not equals or not re.fullmatch(r"[\w./-]+", key):
            remedy = f"Write {shown}=VALUE." if key and not equals else "For example seed=7."
            self._refuse(text if text.isprintable() else repr(text), None, "is not of the form setting=value", remedy)
            return None
        group = key.replace(".", "/")
        chooses = group in GROUPS or group == "recipe"
        if group in SEVERAL and value in {"null", ""}:
            value = "[]"
        if group == "recipe" and not value.startswith("["):
            word = self._recipe_words(value)
        else:
            word = self._parsed(group if chooses else key, value, value)
        if word is None:
            return None
        if special := next((part for part in re.split("[./]", key) if SPECIAL.fullmatch(part)), None) or (
            next(filter(None, (special_key(item, free=is_open(key.split("."))) for item in word.values)), None)
        ):
            self._refuse(key, None, f"names code to call by {special}, which no recipe may", "Leave it out.", blame=key)
            return None
        if not word.count:
            rule = "has no values, or too many to count"
            self._refuse(key, value, rule, "Write a,b,c or range(FROM,TO,STEP).", blame=key)
            return None
        if word.count > 1 and not self.sweep:
            brackets = f"Write {key}=[{value}], or add" if group in SEVERAL else "Write one, or add"
            remedy = f"{brackets} -m to run each of them."
            self._refuse(key, value, "has several values", remedy, blame=word.setting.replace("/", "."))
            return None
        if key == "uses":
            self.modules.use(word.values[0], "uses")
        exist = self._is_recipe if group == "recipe" else partial(self.options.exist, group, setting=group)
        there = [exist(value) for value in word.values] if chooses else []
        return word if all(there) else None

    def _is_recipe(self, chosen: Any) -> bool:
        name = "null" if chosen is None else str(chosen)
        return self.recipes.read(name, self.recipes.files.get(name, name), "recipe")

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
            self._refuse(key, value, rule, "Write hydra/launcher=NAME or hydra.launcher.PARAMETER=VALUE.")
            return None
        if not self.sweep:
            self._refuse(key, value, "has no effect outside a sweep", "Add -m.")
            return None
        word = self._parsed(key, value, value)
        plain = str if names else str | int | float | bool | None
        if (word is not None and not (len(word.values) == 1 and isinstance(word.values[0], plain))) or "${" in value:
            self._refuse(key, value, "must be one name" if names else "must be one plain value, not a list or ${…}")
            return None
        return word

    def _recipe_words(self, value: str) -> Word | None:
        """Read the names and files after ``recipe=``; what Hydra takes are the names under which they are stored."""
        inner = re.fullmatch(r"choice\((.*)\)", value)
        given = [value] if recipe_paths.is_file(value) else listed(inner[1] if inner else value)
        stored = [self.recipes.stored_name(recipe) for recipe in given]
        word = self._parsed("recipe", ",".join(stored), value)
        if word is None or len(word.texts) != len(given):
            return word
        return replace(word, shown=tuple(f"recipe={as_listed(recipe)}" for recipe in given))

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
            self._refuse(key, given, "cannot be read", remedy, blame=key.replace("/", "."))
            return None
        return word


def _in_a_file(setting: str) -> str:
    """Return a sentence that says how a recipe file gives texts of any kind to a setting with free keys."""
    first, *others = setting.split(".")
    nested = '{"a, b": x}'
    for name in reversed(others):
        nested = f"{{{name}: {nested}}}"
    return f"Close every bracket and quote, or put it into a recipe file: `{first}: {nested}`."
