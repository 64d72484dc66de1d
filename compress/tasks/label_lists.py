"""Several labels in one field: lists, names between separators, and 0/1 columns, all read as a list of names.

A list of names is kept as the text of a JSON list, in the order of the file: that is what a row's label is until it is
encoded.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from compress.errors import DataError
from compress.tasks.base import Labelled
from compress.wording import counted, shortened

SEPARATORS = ("|", ";", ",")  # that are recognised; any other must be named
_MARKS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def listed(names: Sequence[object]) -> str:
    """Return the text that stands for a list of labels."""
    return json.dumps([str(name) for name in names], ensure_ascii=False)


@lru_cache(maxsize=10_000)
def names_of(label: str) -> tuple[str, ...] | None:
    """Return the names in a list of labels, as `listed` or Python writes it; None for any other text."""
    if not (label.startswith("[") and label.endswith("]")):
        return None
    try:
        names = json.loads(label)
    except (ValueError, RecursionError):
        try:
            names = ast.literal_eval(label)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    plain = isinstance(names, list) and all(type(name) in (str, int) for name in names)
    return tuple(str(name).strip() for name in names) if plain else None


def of_marks(marks: Mapping[str, object]) -> str:
    """Return the list of the columns that are 1. Raises ValueError, with the column, for what is neither 0 nor 1."""
    chosen = []
    for name, value in marks.items():
        mark = _MARKS.get(str(value).strip().casefold())
        if mark is None:
            raise ValueError(name)
        if mark:
            chosen.append(name)
    return listed(chosen)


def separated(splits: Sequence[Labelled], separator: str | None) -> list[list[str]]:
    """Return the labels of splits, the training rows first, as lists of names.

    A field that is not a list holds names between ``separator``; "" says that it holds one name, None that the sign is
    recognised. An empty field is a row without a label. Raises DataError for a sign that may be meant or not or has
    nothing to separate, for lists of 0 and 1, and for a row that names a label twice or has an empty name.
    """
    for rows in splits:
        _refuse_marks(rows)
    sign = _recognised(splits[0]) if separator is None else _confirmed(splits[0], separator)
    return [[_listed_row(rows, index, word, sign) for index, word in enumerate(rows.words)] for rows in splits]


def _refuse_marks(rows: Labelled) -> None:
    """Raise DataError where the lists of all rows hold a 0 or 1 for each label, not names."""
    lists = [names for word in rows.words if (names := names_of(word))]
    if not all(name.casefold() in _MARKS for names in lists for name in names):
        return
    as_long = len({len(names) for names in lists}) == 1 and len(lists[0]) > 1
    if as_long or any(len(set(names)) < len(names) for names in lists):
        index = next(index for index, word in enumerate(rows.words) if names_of(word))
        raise DataError(
            f"{rows.place(index)}: the labels {shortened(rows.words[index])} are a 0 or 1 for each label, and "
            "which label each stands for is not known. Write lists of names, or a column of 0 and 1 for each label, "
            "and name the columns in data.label_columns."
        )


def _listed_row(rows: Labelled, index: int, word: str, sign: str) -> str:
    names = _split(word, sign)
    if "" in names:
        raise DataError(
            f"{rows.place(index)}: {shortened(word)!r} has an empty label between its separators. Remove the "
            "separator that is too many; a row without any label has an empty field, or an empty list."
        )
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{rows.place(index)}: the label {shortened(twice)!r} stands twice in this row. Remove one.")
    return listed(names)


def _split(word: str, sign: str) -> Sequence[str]:
    names = names_of(word)
    if names is not None:
        return names
    if not word:
        return ()
    return tuple(name.strip() for name in word.split(sign)) if sign else (word,)


def _recognised(rows: Labelled) -> str:
    """Return the sign between labels; "" where no label has one. Raises DataError where that is not certain."""
    words = {word for word in rows.words if word and names_of(word) is None}
    there = [sign for sign in SEPARATORS if any(sign in word for word in words)]
    if not there:
        return ""
    if len(there) > 1:
        raise DataError(
            f"{rows.source}: {' and '.join(map(repr, there))} both occur in labels, as in {_example(rows, there[0])}. "
            f"Say which one separates labels: {_setting(there[0])}."
        )
    (sign,) = there
    if not _divides(words, sign):
        raise DataError(
            f"{rows.source}: does {sign!r} separate labels in {_example(rows, sign)}? Most of the names that it would "
            f"give occur nowhere else. If it does: {_setting(sign)}; if it is part of a name: data.separator=''."
        )
    return sign


def _confirmed(rows: Labelled, separator: str) -> str:
    """Return the sign that the user names. Raises DataError where it has no effect, or another divides the labels."""
    words = {word for word in rows.words if word and names_of(word) is None}
    if not words and any(rows.words):
        raise DataError(
            f"{rows.source}: data.separator = {separator!r} has no effect, because labels are lists already, or "
            "columns of 0 and 1. Leave it out."
        )
    if separator and not any(separator in word for word in words):
        other = next((sign for sign in SEPARATORS if _divides(words, sign)), None)
        if other is not None:
            raise DataError(
                f"{rows.source}: data.separator = {separator!r} occurs in no label, and {other!r} seems to separate "
                f"them, as in {_example(rows, other)}. Set {_setting(other)}."
            )
    return separator


def _divides(words: set[str], sign: str) -> bool:
    """Return whether half or more of the names that a sign would cut out of labels occur in other labels too."""
    counts = Counter(name.strip() for word in words for name in set(word.split(sign)))
    cut = {name.strip() for word in words if sign in word for name in word.split(sign)}
    return bool(cut) and 2 * sum(counts[name] > 1 for name in cut) >= len(cut)


def _example(rows: Labelled, sign: str) -> str:
    index = next(index for index, word in enumerate(rows.words) if sign in word and names_of(word) is None)
    return f"{shortened(rows.words[index])!r} ({rows.place(index)})"


def _setting(sign: str) -> str:
    return f"data.separator='{sign}'"


def refuse_lists(splits: Sequence[Labelled]) -> None:
    """Raise DataError for the first label that is a list, in rows of a task with one label per row."""
    for rows in splits:
        lists = [index for index, word in enumerate(rows.words) if names_of(word) is not None]
        if lists:
            more = f" {counted(len(lists) - 1, 'more row')} like it." if len(lists) > 1 else ""
            raise DataError(
                f"{rows.place(lists[0])}: the label is a list, {shortened(rows.words[lists[0]])}, where a word or a "
                f"number is expected. If rows may have several labels: task=multi_label.{more}"
            )
