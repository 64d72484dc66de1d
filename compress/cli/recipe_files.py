"""What is in a recipe file, with line numbers, and why it cannot be one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compress.cli.limits import (
    DEEPEST,
    LONGEST_FILE,
    MOST_VALUES,
    calls,
    inserted,
    is_hydras,
    texts_in,
    unprintable,
)
from compress.cli.recipe_paths import shown
from compress.errors import Fault, RecipeError
from compress.yaml_dialect import MEANINGS

TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"

IsOpen = Callable[[Sequence[str]], bool]  # whether the keys below a setting are the user's own texts


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


def read(path: Path, is_open: IsOpen) -> RecipeFile:
    """Read a recipe file. Raises RecipeError where it is not a YAML file of settings."""
    text = _text(path)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        for mapping, above in _mappings(root):
            if above is not None and is_open(above):
                mapping.value = [(_as_text(key), _as_text(value)) for key, value in mapping.value]
        faults = [*_key_faults(path, root, is_open), *_size_faults(path, root)]
        if faults:
            raise RecipeError(faults)
        content = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{shown(path)}:{mark.line + 1 if mark else 1}"
        rule = f"this is not YAML: {error.problem}"
        if isinstance(error, yaml.composer.ComposerError):  # what is YAML, but no recipe
            several = (error.problem or "").startswith("but found another document")
            rule = "a second document begins here, and a recipe must be a single one" if several else str(error.problem)
        raise RecipeError([Fault(where, None, rule)]) from error
    except (ValueError, yaml.YAMLError) as error:  # a number of thousands of digits; a control character
        raise RecipeError([Fault("recipe", shown(path), "cannot be read as a YAML text file")]) from error
    if not isinstance(content, dict | None):
        raise RecipeError([Fault(f"{shown(path)}:1", None, "a recipe holds settings, as `seed: 7`")])
    values = dict(content or {})
    defaults = values.pop("defaults", None) or []
    if not isinstance(defaults, list):
        example = "For example `- override /prune: [heads]`."
        raise RecipeError([Fault(f"{shown(path)}: defaults", defaults, "must be a list of choices", example)])
    lines: dict[str, int] = {}
    for setting, line in _lines(root, ""):
        if setting in lines:
            rule = f"is set already, in line {lines[setting]}"
            faults.append(Fault(f"{shown(path)}:{line}: {setting}", None, rule))
        lines[setting] = line
    recipe = RecipeFile(path, defaults, values, lines)
    faults += _text_faults(recipe)
    if faults:
        raise RecipeError(faults)
    return recipe


def flat_mapping(text: str) -> dict[str, str] | None:
    """Return a mapping of texts to texts as YAML writes it, ``{0: bad, 'a, b': good}``; None for anything else."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        root = _Loader(text).get_single_node()
    except (ValueError, yaml.YAMLError):
        return None
    if not isinstance(root, yaml.MappingNode) or not all(_is_text(node) for pair in root.value for node in pair):
        return None
    return {key.value: value.value for key, value in root.value}


def _is_text(node: yaml.Node) -> bool:
    """Return whether a node is a text that YAML and Hydra read alike: in quotes, or without a backslash, not empty."""
    if not isinstance(node, yaml.ScalarNode) or node.tag == MERGE:
        return False
    return node.style is not None or bool(node.value and "\\" not in node.value)


def _as_text(node: yaml.Node) -> yaml.Node:
    """Return a key or a value as the text that it is written as: 0 as "0", true as "true"; others as they are."""
    if not isinstance(node, yaml.ScalarNode) or node.tag == MERGE:
        return node
    text = node.value or ("" if node.style else "null")
    return yaml.ScalarNode(TEXT, text, node.start_mark, node.end_mark, node.style)


def _text(path: Path) -> str:
    """Return the text of a recipe file. Raises RecipeError where it is not a file, or too long for one of settings."""
    try:
        if path.exists() and not path.is_file():
            rule = "is a folder" if path.is_dir() else "is not a regular file"
            raise RecipeError([Fault("recipe", shown(path), rule, "Name a YAML file.")])
        with path.open("rb") as file:
            raw = file.read(LONGEST_FILE + 1)
        if len(raw) > LONGEST_FILE:
            rule = f"is longer than {LONGEST_FILE >> 10} KiB, which no recipe needs"
            raise RecipeError([Fault("recipe", shown(path), rule, "Name a file of settings.")])
        return raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise RecipeError([Fault("recipe", shown(path), "is not a file", "See `compress recipes`.")]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([Fault("recipe", shown(path), "cannot be read as a YAML text file")]) from error


def _key_faults(path: Path, root: yaml.Node | None, is_open: IsOpen) -> Iterator[Fault]:
    """Yield keys that are not names of settings, and those that would have Hydra call code."""
    for key, place in ((key, place) for node, place in _mappings(root) for key, _ in node.value):
        free = place is not None and is_open(place)
        where = f"{shown(path)}:{key.start_mark.line + 1}"
        name = str(key.value).strip()
        if key.tag == MERGE:
            yield Fault(
                f"{where}: <<", None, "merges settings with <<, which is not supported", "Write the settings out."
            )
        elif not isinstance(key, yaml.ScalarNode) or key.tag != TEXT:
            value = key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
            yield Fault(where, value, "is a key, and must be a name", "Put quotes around it if it is one.")
        elif calls(name, free=free):
            yield Fault(f"{where}: {name}", None, "names code to call, which no recipe may", "Leave it out.")
        elif place == () and is_hydras(name):
            remedy = "Choose hydra/launcher=NAME and hydra/sweeper=NAME on the command line."
            yield Fault(f"{where}: {name}", None, "belongs to Hydra, which no recipe may set", remedy)
        elif "." in name and place is not None and not free:
            *above, last = name.split(".")
            nested = f"{': {'.join(above)}: {{{last}: …}}{'}' * (len(above) - 1)}"
            yield Fault(f"{where}: {name}", None, "is a path, and must be a name", f"Write `{nested}`.")


def _mappings(node: yaml.Node | None) -> Iterator[tuple[yaml.MappingNode, tuple[str, ...] | None]]:
    """Yield each mapping once, with the keys above it; None below ``defaults``, whose keys are choices."""
    waiting: list[tuple[yaml.Node | None, tuple[str, ...] | None]] = [(node, ())]
    seen: set[int] = set()
    while waiting:
        node, place = waiting.pop(0)
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node, place
            for key, value in node.value:
                free = place is None or (place == () and key.value == "defaults")
                waiting.append((value, None if free else (*(place or ()), str(key.value))))
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(item, place) for item in node.value]


def _size_faults(path: Path, root: yaml.Node | None) -> Iterator[Fault]:
    """Yield the first node that holds itself, or more than `MOST_VALUES` values when its aliases are written out."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        """Return the number of values; raises _TooLargeError. Nodes lie no deeper than `DEEPEST`."""
        if id(node) not in sizes:
            sizes[id(node)] = MOST_VALUES + 1  # until it is known: a node that is met again below itself has no end
            parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
            total = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(map(size, parts)))
            if total > MOST_VALUES:
                raise _TooLargeError(node)
            sizes[id(node)] = total
        return sizes[id(node)]

    try:
        if root is not None:
            size(root)
    except _TooLargeError as error:
        where = f"{shown(path)}:{error.node.start_mark.line + 1}"
        rule = f"holds more than {MOST_VALUES} values when its aliases are written out"
        yield Fault(where, None, rule, "Write out what is meant, without `&` and `*`.")


class _TooLargeError(Exception):
    """A node has too many values."""

    def __init__(self, node: yaml.Node) -> None:
        self.node = node


def _text_faults(recipe: RecipeFile) -> Iterator[Fault]:
    """Yield texts that insert what may not be inserted, or hold signs that no name or path may."""
    for setting, value in recipe.values.items():
        for text in texts_in({setting: value}):
            if why := unprintable(text) or inserted(text):
                yield Fault(f"{recipe.line(setting)}: {setting}", text, *why)


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
    """Reads 1e-3 as a number, which YAML 1.1 does not, leaves dates as text, and refuses tags and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node; raises ComposerError where it has a tag or lies too deep."""
        parser: Any = self  # which has no types
        event = parser.peek_event()
        if getattr(event, "tag", None) is not None:
            problem = f"the tag {event.tag!r} is not supported; write a plain value, in quotes for text"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        self.depth += 1
        if self.depth > DEEPEST:
            problem = f"more than {DEEPEST} nested levels"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    yaml_implicit_resolvers = MEANINGS
