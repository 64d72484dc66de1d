"""Labels that are hardly classes: missing values, scores, texts. Each message names the setting that answers it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compress.data.headers import is_number
from compress.data.rows import Rows, counted
from compress.errors import DataError
from compress.tasks.base import TaskKind

NOT_FINITE = frozenset({"nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
MISSING = NOT_FINITE | {"none", "null", "na", "n/a", "#n/a", "<na>", "nil", "missing", "?", "-", "nat"}
MOST_CLASSES = 20  # numbers beyond which a person is asked
LONGEST = 1000  # characters of a label
LARGEST = 3e38  # that a score of 32 bits can hold


def refuse_doubtful_labels(splits: Sequence[Rows | None], kind: TaskKind) -> None:
    """Raise DataError where labels of these splits, the training rows first, are no classes of ``kind``, or may not be.

    With task=classification every word is taken as a class, with task=regression what is no number is found later.
    """
    labelled = [rows for rows in splits if rows is not None and rows.labels is not None]
    for rows in labelled:
        _refuse_sizes(rows)
    if kind is TaskKind.auto:
        words = {word for rows in labelled for word in set(rows.words)}
        rest = [word for word in words if word.casefold() not in MISSING]
        numeric = bool(rest) and all(map(is_number, rest))
        for rows in labelled:
            _refuse_missing(rows, numeric)
        if numeric:
            _ask_for_scores(labelled[0])


def _refuse_sizes(rows: Rows) -> None:
    for word in set(rows.words):
        if len(word) > LONGEST:
            place = rows.place(rows.words.index(word))
            raise DataError(
                f"{place}: the label has {len(word):,} characters. Set data.label to the right column, or put the "
                "label first in a file without a header."
            )
        if is_number(word) and abs(float(word)) > LARGEST:
            place = rows.place(rows.words.index(word))
            raise DataError(f"{place}: the label {_short(word)!r} is not a finite number of 32 bits. Correct it.")


def _refuse_missing(rows: Rows, numeric: bool) -> None:
    bad = [i for i, word in enumerate(rows.words) if word.casefold() in (MISSING if numeric else NOT_FINITE)]
    if bad:
        more = f" {counted(len(bad) - 1, 'more row')} like it." if len(bad) > 1 else ""
        raise DataError(
            f"{rows.place(bad[0])}: the label {rows.words[bad[0]]!r} is not a finite number, and stands for a missing "
            "value rather than for a class. Correct it, or remove the row; if it is a class, set "
            f"task=classification.{more}"
        )


def _ask_for_scores(train: Rows) -> None:
    """Raise DataError where numbers may be scores as well as classes.

    That is more whole numbers than a scale of stars has, or six and more in steps of five and longer, or steps of
    less than one, too few to be clearly scores. Up to 20 whole numbers, such as 0 to 5 stars, are classes.
    """
    words = set(train.words)
    values = sorted({float(word) for word in words})
    if len(values) > MOST_CLASSES and not all(map(float.is_integer, values)):
        return  # regression
    above = [value - values[0] for value in values]
    finer = not all(map(float.is_integer, above))
    step = 0 if finer else math.gcd(*map(int, above))
    if len(values) > MOST_CLASSES or (finer and len(values) > 2) or (step >= 5 and len(values) >= 6):
        raise DataError(
            f"{train.source}: are the labels scores or classes? They are {len(values):,} different numbers from "
            f"{values[0]:g} to {values[-1]:g} in {counted(len(train), 'row')}. Say what is meant: task=regression or "
            "task=classification; or set data.label to another column."
        )


def _short(label: str) -> str:
    return label if len(label) <= 40 else label[:39] + "…"
