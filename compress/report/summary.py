"""How the rows were read, out of report.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.data.rows import Columns
from compress.data.summary import CutRows, Summary
from compress.errors import CompressError


def summary_of(item: Mapping[str, Any]) -> Summary:
    """Return the summary that a report keeps, an empty one where it keeps none; raises CompressError."""
    if not item:
        return Summary()
    try:
        return Summary(
            columns={str(source): _columns(columns) for source, columns in item["columns"].items()},
            rows={str(split): int(rows) for split, rows in item["rows"].items()},
            classes={
                str(label): {str(split): int(rows) for split, rows in counts.items()}
                for label, counts in item["classes"].items()
            },
            once=_words(item["once"]),
            alike=tuple(map(_words, item["alike"])),
            absent={str(split): _words(labels) for split, labels in item["absent"].items()},
            max_tokens=None if item["max_tokens"] is None else int(item["max_tokens"]),
            cut={
                str(split): CutRows(
                    rows=int(cut["rows"]), cut=int(cut["cut"]), tokens=int(cut["tokens"]), lost=int(cut["lost"])
                )
                for split, cut in item["cut"].items()
            },
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise CompressError(
            f"'summary' of 'dataset' is not as this version writes it ({type(error).__name__})."
        ) from None


def _columns(item: Mapping[str, Any]) -> Columns:
    pair, label = item["pair"], item["label"]
    return Columns(
        header=str(item["header"]),
        text=str(item["text"]),
        pair=None if pair is None else str(pair),
        label=None if label is None else str(label),
        ignored=_words(item["ignored"]),
        named=bool(item["named"]),
    )


def _words(item: list[Any]) -> tuple[str, ...]:
    if not isinstance(item, list):
        raise TypeError(item)
    return tuple(map(str, item))
