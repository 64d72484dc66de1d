"""Descriptions of settings: name, type, default, and the comment beside the field."""

from __future__ import annotations

import inspect
import io
import os
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from types import NoneType
from typing import Any, Union, get_args, get_origin

from compress.errors import Fault
from compress.settings import Settings

SHOWN = (Settings, Mapping, str, float, int, Enum, list, tuple, os.PathLike, NoneType)
"""Types of values that a message shows; of others, as tables, it names the type."""

WORDS = {
    bool: ("true or false", "yes/no"),
    int: ("a whole number", "int"),
    float: ("a number", "float"),
    str: ("text", "text"),
}


@dataclass(frozen=True)
class Described:
    """One setting as the help shows it."""

    path: str
    kind: str  # its type in short: "float", "linear|cosine", "list of int"
    default: str
    comment: str


def hints(settings: type) -> dict[str, Any]:
    """Return the resolved types of a dataclass's fields."""
    return typing.get_type_hints(settings)


def expected(hint: Any) -> str:
    """Return what a setting of this type accepts, to complete "must be …"."""
    inner = _not_none(hint)
    if len(inner) != 1:
        return " or ".join(expected(member) for member in inner)
    (hint,) = inner
    if hint in WORDS:
        return WORDS[hint][0]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(hint.__members__)}"
    if get_origin(hint) in {list, tuple}:
        return f"a list, as [a,b], each {expected(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        key, value = get_args(hint)
        if key is not Any:
            return "a group of choices, or settings by name"
        return f"a dictionary, as {'{a: [b,c]}' if get_origin(value) is list else '{a: b}'}"
    if isinstance(hint, type) and issubclass(hint, Settings):
        return f"given by its settings ({', '.join(field.name for field in fields(hint))})"
    return "a value of its type"


def fits(value: Any, hint: Any) -> bool:
    """Return whether ``value`` is valid for a setting of this type."""
    if hint is Any:
        return True
    if value is None:
        return type(None) in get_args(hint)
    return any(_is_a(value, member) for member in _not_none(hint))


def mistyped(settings: Settings, prefix: str = "") -> Iterator[Fault]:
    """Yield a fault for every value below ``settings`` that does not fit its field's type."""
    types = hints(type(settings))
    for field in fields(settings):
        value, hint = getattr(settings, field.name), types[field.name]
        path = f"{prefix}{field.name}"
        if not fits(value, hint):
            shown = None if isinstance(value, Settings | Mapping) else value
            if not isinstance(value, SHOWN):
                shown = type(value).__name__
            yield Fault(path, shown, f"must be {expected(hint)}")
        elif isinstance(value, Settings):
            yield from mistyped(value, f"{path}.")
        elif isinstance(value, Mapping):
            for name, part in value.items():
                if isinstance(part, Settings):
                    yield from mistyped(part, f"{path}.{name}.")


def _is_a(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in {list, tuple}:
        return isinstance(value, list | tuple) and all(fits(item, get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(fits(item, get_args(hint)[1]) for item in value.values())
    if isinstance(value, bool) and hint in {int, float}:
        return False
    return not isinstance(hint, type) or isinstance(value, float | int if hint is float else hint)


def short(hint: Any) -> str:
    """Return the type in a word or two, for a table."""
    inner = _not_none(hint)
    if len(inner) != 1:
        return "|".join(short(member) for member in inner)
    (hint,) = inner
    if hint in WORDS:
        return WORDS[hint][1]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "|".join(hint.__members__)
    if get_origin(hint) in {list, tuple}:
        return f"list of {short(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return "dictionary" if get_args(hint)[0] is Any else "settings by name"
    return "any" if hint is Any else getattr(hint, "__name__", str(hint))


def describe(settings: type[Settings] | Settings, path: str = "") -> Iterator[Described]:
    """Yield every setting of a dataclass, or of an instance with its values, below ``path``; parts included."""
    cls = settings if isinstance(settings, type) else type(settings)
    texts = comments(cls)
    for field in fields(cls):
        value = _default(field) if isinstance(settings, type) else getattr(settings, field.name)
        where = f"{path}.{field.name}" if path else field.name
        if isinstance(value, Settings):
            yield from describe(value, where)
        elif not isinstance(value, Mapping) or {"listed", "open"} & set(field.metadata):
            yield Described(where, short(hints(cls)[field.name]), _written(value), texts.get(field.name, ""))


def comments(settings: type) -> Mapping[str, str]:
    """Return the comment beside each field, inherited fields included; empty where the source is not available."""
    texts: dict[str, str] = {}
    for cls in reversed(settings.__mro__):
        if "__dataclass_fields__" in vars(cls):
            texts |= _own_comments(cls)
    return texts


def summary(settings: type[Settings] | Settings) -> str:
    """Return the first line of a dataclass's documentation."""
    return (inspect.getdoc(settings) or "").partition("\n")[0]


def _own_comments(cls: type) -> dict[str, str]:
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    texts: dict[str, str] = {}
    depth, field = 0, ""
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif depth != 1:
            continue
        elif token.type == tokenize.COMMENT and field:
            texts[field] = token.string.lstrip("# ")
        elif token.type in {tokenize.NEWLINE, tokenize.NL}:
            if token.type == tokenize.NEWLINE:
                statement, field = [], ""
        else:
            statement.append(token)
            if len(statement) == 2 and statement[1].string == ":" and statement[0].type == tokenize.NAME:
                field = statement[0].string
    return {name: comment for name, comment in texts.items() if name in cls.__annotations__}


def _not_none(hint: Any) -> list[Any]:
    members = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    return [member for member in members if member is not type(None)]


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else ""


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return f"{{{','.join(map(str, value))}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
