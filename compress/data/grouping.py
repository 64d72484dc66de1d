"""Rows in groups, such as the candidates of a query: each label also tells its row's group, by number."""

from __future__ import annotations

from dataclasses import replace

from compress.data.rows import Rows, folded
from compress.errors import DataError


def numbered(rows: Rows, first: int) -> tuple[Rows, int]:
    """Return rows with labels "RELEVANCE NUMBER", numbers counted from ``first`` by group, and the next free number.

    Rows without labels get "nan". Where no column names the groups, rows with the same first text are one (case and
    white space folded). Raises DataError for rows of one text each.
    """
    if rows.pairs is None:
        raise DataError(
            f"{rows.source}: has one text per row, and a ranking needs two, a query and a candidate. Name their "
            "columns: data.text=COLUMN data.text_pair=COLUMN."
        )
    names = list(rows.groups) if rows.groups is not None else [folded(text) for text in rows.texts]
    number = {name: first + place for place, name in enumerate(dict.fromkeys(names))}
    words = ["nan"] * len(rows) if rows.labels is None else rows.labels
    labels = [f"{word} {number[name]}" for word, name in zip(words, names, strict=True)]
    return replace(rows, labels=labels, groups=names), first + len(number)


def ungrouped(rows: Rows) -> Rows:
    """Return rows of a task that knows no groups: a column that was recognised as theirs is one more unused column."""
    if rows.groups is None or rows.columns is None:
        return rows
    columns = rows.columns
    unused = (*columns.ignored, *([columns.group] if columns.group is not None else []))
    return replace(rows, groups=None, columns=replace(columns, group=None, ignored=unused))
