"""What was probably meant by a setting that there is not."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig

from compress.describe import hints
from compress.registry import GROUPS, SEVERAL
from compress.settings import nearest


def instead(config: DictConfig, path: str) -> str:
    """Return a sentence that says what was probably meant by a setting that there is not."""
    above: list[str] = []
    owner: Any = config
    for key in path.split("."):
        if not isinstance(owner, DictConfig) or key not in owner:
            break
        owner = owner[key]
        above.append(key)
    group, prefix = "/".join(above), "".join(f"{part}." for part in above)
    if not isinstance(owner, DictConfig):
        return f"{'.'.join(above)} has no settings of its own."
    if group in SEVERAL:
        if key in GROUPS[group]:
            return f"Choose it first: {group}=[{','.join([*map(str, owner), key])}]."
        return nearest(key, GROUPS[group])
    known = [str(name) for name in owner]
    if close := get_close_matches(key, known, n=1, cutoff=0.7):
        return f"Did you mean {prefix}{close[0]}?"
    for option, settings in GROUPS.get(group, {}).items():
        if key in hints(settings if isinstance(settings, type) else type(settings)):
            return f"It is a setting of {group}={option}."
    name = path.rpartition(".")[2]
    if elsewhere := [path for path in _paths(config) if path.rpartition(".")[2] == name]:
        return f"Did you mean {' or '.join(elsewhere)}?"
    return nearest(f"{prefix}{key}", [f"{prefix}{name}" for name in known])


def _paths(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, config):
        path = f"{prefix}{key}"
        part = config._get_node(key)
        if isinstance(part, DictConfig) and not part._is_none() and not part._is_missing():
            yield from _paths(part, f"{path}.")
        else:
            yield path
