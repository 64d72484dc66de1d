"""Settings are dataclasses; this file collects everything that is wrong with them.

A dataclass that derives from `Settings` is the schema of one part of a recipe, its Python API and
its documentation. `faults` yields what is wrong with its own fields, as far as is known; `all_faults` walks the tree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any

from compress.errors import Fault
from compress.known import NOTHING, Known


@dataclass(kw_only=True)
class Settings:
    """Base class of every part of a recipe."""

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Yield all that is wrong with this object's own fields, as far as is known.

        A rule that needs something which is not known is left out. Files are read only where ``known`` allows it.
        """
        yield from ()

    def known_to_parts(self, known: Known) -> Known:
        """Return what is known to the parts of this object."""
        return known


def all_faults(settings: Settings, known: Known = NOTHING) -> Iterator[Fault]:
    """Yield the faults of ``settings`` and of every `Settings` below it, with full paths."""
    yield from settings.faults(known)
    for name, part in children(settings):
        for fault in all_faults(part, settings.known_to_parts(known)):
            yield fault.under(name)


def children(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Yield (path, part) for each `Settings` that ``settings`` holds directly or in a dictionary."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Settings):
            yield field.name, value
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if isinstance(item, Settings):
                    yield f"{field.name}.{key}", item


def between(
    owner: object, name: str, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> Iterator[Fault]:
    """Yield a fault unless ``owner.name`` is a finite number in the interval; None passes."""
    value = getattr(owner, name)
    if value is None:
        return
    inside = math.isfinite(value)
    inside = inside and (value > low if open_low else value >= low)
    inside = inside and (value < high if open_high else value <= high)
    if not inside:
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        rule = f"must lie in {left}{low:g}, {high:g}{right}"
        if math.isinf(high):
            rule = f"must be {'above' if open_low else 'at least'} {low:g}, and finite"
        yield Fault(name, value, rule)


def at_least(owner: object, name: str, low: float) -> Iterator[Fault]:
    """Yield a fault unless ``owner.name`` is finite and at least ``low``; None passes."""
    return between(owner, name, low, math.inf)


def positive(owner: object, name: str) -> Iterator[Fault]:
    """Yield a fault unless ``owner.name`` is finite and above zero; None passes."""
    return between(owner, name, 0, math.inf, open_low=True)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the known word nearest to ``word``, or lists them all."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1, cutoff=0.7)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}." if known else ""


def spelled(value: object) -> str:
    """Return a plain value as it is written in YAML: True as ``true``, None as ``null``."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON-ready dictionaries, lists and scalars; dataclasses keep their class name."""
    if is_dataclass(value) and not isinstance(value, type):
        body = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, **body}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value
