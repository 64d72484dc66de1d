"""Decide whether a first line is a header or a row, and refuse column names with two meanings; never guess."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from compress.data.columns import LABELS, PAIRS, TAGS, TEXTS
from compress.data.rows import Rows, folded
from compress.data.scripts import words_in
from compress.errors import DataError
from compress.tasks.doubts import is_number

LONGEST_NAME = 4  # words in the longest column name


def check_names(names: Sequence[str], where: str, *, named: Sequence[str | None]) -> None:
    """Raise DataError if two columns have the same name.

    Names that differ only in case or white space count as the same, unless all used columns are ``named``.
    """
    repeated = _repeated([name for name in names if name.strip()])
    if repeated:
        places = [str(place) for place, name in enumerate(names, 1) if name == repeated]
        raise DataError(
            f"{where}: columns {' and '.join(places)} are both named {repeated!r}. Remove or rename one of them."
        )
    meant = {folded(word) for word in LABELS + TAGS + TEXTS + PAIRS}
    for name in names:
        alike = [other for other in names if folded(other) == folded(name)]
        if len(alike) > 1 and folded(name) in meant and not set(alike) & set(named):
            raise DataError(
                f"{where}: the columns {' and '.join(map(repr, alike))} differ only in case or white space. Remove or "
                "rename one of them, or name the columns you mean: data.text, data.text_pair, data.label."
            )


def refuse_unknown_header(train: Rows, others: Sequence[Rows | None]) -> None:
    """Raise DataError if line 1 of a file without a known header may be a header: its label occurs only there.

    Its fields are then a few words, and most other classes occur more than once.
    """
    labels = train.words
    label, texts = labels[0], [train.texts[0], *(train.pairs[:1] if train.pairs is not None else ())]
    counts = Counter(labels)
    labelled = [rows.words for rows in others if rows is not None and rows.labels is not None]
    others_known = any(label in islice(words, 1, None) for words in labelled)
    if counts.pop(label) > 1 or others_known or is_number(label) or not counts:
        return
    named = all(words_in(field) <= LONGEST_NAME and not re.search(r"[.!?。！？]$", field) for field in (label, *texts))
    repeated = sum(count > 1 for count in counts.values())
    if named and (all(map(is_number, counts)) or repeated * 2 > len(counts)):
        shown = ", ".join(repr(field) for field in (label, *texts))
        raise DataError(
            f"{train.place(0)}: is {shown} a header or a row? No other row has the label {label!r}. If it is a header: "
            "data.header=true, with data.label=COLUMN and data.text=COLUMN; if it is a row: data.header=false."
        )


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
