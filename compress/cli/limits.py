"""What words and recipe files may not hold, whichever setting it is given to.

Nothing in a recipe names code to run, reads more than other settings and environment variables, or grows without
bound when it is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

LONGEST_WORD = 20_000  # characters
LONGEST_FILE = 1 << 18  # bytes of a recipe file
DEEPEST = 32  # brackets or levels inside each other
MOST_VALUES = 10_000  # of a recipe file, aliases written out
MOST_JOBS = 1000  # of a sweep
MOST_INCLUDED = 50  # recipes that one builds on

SPECIAL = re.compile(r"_\w+_")  # keys with which Hydra names what to call
CALLS = frozenset({"_target_", "_partial_", "_args_", "_recursive_", "_convert_"})  # those that it knows today
RESOLVERS = frozenset({"oc.env"})  # functions inside ${…} that only read
INTERPOLATION = re.compile(r"\$\{([^:${}]*)([:${}]?)")
MOST_COPIES = 1000  # times that one text can be inserted, by insertions of insertions

Why = tuple[str, str]  # a rule and a remedy


def is_hydras(setting: str) -> bool:
    """Return whether a key belongs to Hydra's own settings, however it is written: ``hydra/launcher``, ``+hydra.x``."""
    return re.split(r"[./@:]", setting.strip().lstrip("+~/ "), maxsplit=1)[0].strip().lower() == "hydra"


def calls(key: str, *, free: bool = False) -> bool:
    """Return whether a key says to Hydra what to call; of ``free`` keys, which are any text, only those it knows."""
    return key.strip() in CALLS if free else SPECIAL.fullmatch(key.strip()) is not None


def special_key(value: object, *, free: bool = False) -> str | None:
    """Return a key of Hydra's that says what to call, from anywhere in a value, whose own keys may be ``free``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if calls(str(key), free=free):
                return str(key).strip()
            if found := special_key(item):
                return found
    elif isinstance(value, list | tuple):
        return next((found for item in value if (found := special_key(item))), None)
    return None


def too_nested(text: str) -> bool:
    """Return whether brackets of a word lie deeper in each other than `DEEPEST`, quoted ones too."""
    depth = 0
    for sign in text:
        depth += (sign in "[{(") - (sign in "]})")
        if depth > DEEPEST:
            return True
    return False


def unprintable(text: str) -> Why | None:
    """Return why a text can be neither a name nor a path nor a part of a report."""
    if "\0" in text:
        return "holds a NUL character", "Remove it."
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        return "holds half a character (a lone surrogate)", "Write the whole character, in UTF-8."
    return None


def inserted(text: str) -> Why | None:
    """Return why what a text inserts by ``${…}`` may not be inserted."""
    for name, end in INTERPOLATION.findall(text):
        if end == ":" and name.strip() not in RESOLVERS:
            return f"calls the function {name.strip()!r}, which is not allowed", _INSERTED
        if end in {"$", "{"}:
            return "nests one insertion in another, which is not allowed", _INSERTED
        if end != ":" and is_hydras(re.sub(r"^[\s.\[]+", "", name).replace("]", ".")):
            return "inserts one of Hydra's own settings, which is not allowed", _INSERTED
    return None


_INSERTED = "Insert another setting, as ${seed}, or an environment variable, as ${oc.env:NAME}."


def too_many_copies(texts: Iterable[str]) -> bool:
    """Return whether texts that insert each other could grow beyond all measure."""
    return math.prod(max(1, text.count("${")) for text in texts) > MOST_COPIES


def texts_in(value: object) -> Iterator[str]:
    """Yield every text in a value of nested mappings and lists, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts_in(key)
            yield from texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)
