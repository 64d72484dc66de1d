"""Labels that are hardly classes: missing values, scores, texts. Each message names the setting that answers it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from compress.errors import DataError
from compress.tasks.base import Labelled
from compress.tasks.label_lists import refuse_lists
from compress.wording import counted, shortened

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NOT_FINITE = frozenset({"nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
MISSING = NOT_FINITE | {"none", "null", "na", "n/a", "#n/a", "<na>", "nil", "missing", "?", "-", "nat"}
MOST_CLASSES = 20  # numbers beyond which a person is asked
LONGEST = 1000  # characters of a label
LARGEST = 3e38  # that a score of 32 bits can hold


def is_number(text: str) -> bool:
    """Return whether a label is written as a finite number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def refuse_doubtful_labels(splits: Sequence[Labelled], *, asked: bool) -> None:
    """Raise DataError where labels of these splits, the training rows first, are neither classes nor scores.

    ``asked`` means that the recipe names the task: then every word is used as a class, and what is not a score is found
    when it is encoded. Otherwise labels that may be either, or stand for a missing value, are refused too.
    """
    refuse_lists(splits)
    for rows in splits:
        _refuse_sizes(rows)
    if not asked:
        words = {word for rows in splits for word in set(rows.words)}
        rest = [word for word in words if word.casefold() not in MISSING]
        numeric = bool(rest) and all(map(is_number, rest))
        for rows in splits:
            _refuse_missing(rows, numeric)
        if numeric:
            _ask_for_scores(splits[0])


def refuse_too_many_classes(train: Labelled) -> None:
    """Raise DataError where labels of an unnamed task have too many different values for classes."""
    first_of: dict[str, int] = {}
    for index, label in enumerate(train.words):
        first_of.setdefault(label, index)
    if len(first_of) <= max(20, len(train.words) // 5):
        return
    scores = sum(map(is_score, first_of))
    hint = ""
    if scores > len(first_of) / 2:
        odd = next((index for label, index in first_of.items() if not is_score(label)), None)
        if odd is not None:
            hint = f" Most are numbers, but not {shortened(train.words[odd])!r} ({train.place(odd)})."
    raise DataError(
        f"{train.source}: {len(first_of):,} different labels in {counted(len(train.words), 'row')} are too many for "
        f"classes.{hint} Set data.label to the right column, put the label first in a file without a header, "
        "or say what is meant: task=regression or task=classification."
    )


def is_score(text: str) -> bool:
    """Return whether a label can be read as a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _refuse_sizes(rows: Labelled) -> None:
    for word in set(rows.words):
        if len(word) > LONGEST:
            place = rows.place(rows.words.index(word))
            raise DataError(
                f"{place}: the label has {len(word):,} characters. Set data.label to the right column, or put the "
                "label first in a file without a header."
            )
        if is_number(word) and abs(float(word)) > LARGEST:
            place = rows.place(rows.words.index(word))
            raise DataError(f"{place}: the label {shortened(word)!r} is not a finite number of 32 bits. Correct it.")


def _refuse_missing(rows: Labelled, numeric: bool) -> None:
    bad = [i for i, word in enumerate(rows.words) if word.casefold() in (MISSING if numeric else NOT_FINITE)]
    if bad:
        more = f" {counted(len(bad) - 1, 'more row')} like it." if len(bad) > 1 else ""
        raise DataError(
            f"{rows.place(bad[0])}: the label {rows.words[bad[0]]!r} is not a finite number, and stands for a missing "
            "value rather than for a class. Correct it, or remove the row; if it is a class, set "
            f"task=classification.{more}"
        )


def _ask_for_scores(train: Labelled) -> None:
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
            f"{values[0]:g} to {values[-1]:g} in {counted(len(train.words), 'row')}. Say what is meant: "
            "task=regression or task=classification; or set data.label to another column."
        )
