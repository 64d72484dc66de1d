"""What occurs more than once: ids, which is an error, and texts, which a report notes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from compress.data.equal_rows import Repeats, among, numbers_of
from compress.data.rows import Rows
from compress.errors import DataError
from compress.wording import counted, shortened


def refuse_repeated_ids(splits: Sequence[Rows]) -> None:
    """Raise DataError for an id of two records; rows that were made of the same record share its id."""
    ends = np.cumsum([len(rows) for rows in splits])

    def found(place: int) -> tuple[Rows, int]:
        split = int(np.searchsorted(ends, place, side="right"))
        return splits[split], place - int(ends[split]) + len(splits[split])

    for followers, first in Repeats.of(numbers_of(chain.from_iterable(rows.ids for rows in splits))).followers():
        for pair in zip(followers.tolist(), first.tolist(), strict=True):
            (rows, index), (others, other) = map(found, pair)
            if (place := rows.place(index)) != (before := others.place(other)):
                raise DataError(
                    f"{place}: the id {shortened(rows.ids[index])!r} is that of {before} too. Give each row an id of "
                    "its own, or leave out data.id."
                )


def repetitions(chosen: dict[str, Rows], unlabelled: Rows | None) -> list[str]:
    """Return notes on texts that occur more than once in the used rows."""
    train, notes = chosen["training"], []
    repeats = Repeats.of(train.keys)
    if repeated := len(train) - int(np.count_nonzero(repeats.count)):
        torn = _torn(train, repeats)
        contradiction = f"; {counted(torn, 'text')} with more than one label" if torn else ""
        notes.append(
            f"Repeated texts: {counted(repeated, 'training row')} after the first (case and white space folded)"
            f"{contradiction}. A repeated row weighs more; remove it from the file if that is not meant."
        )
    for name in ("validation", "test"):
        if leaked := int(among(chosen[name].keys, train.keys).sum()):
            total = len(chosen[name])
            notes.append(
                f"{leaked:,} of {total:,} {name} rows ({leaked / total:.1%}) have a text that is also in training, "
                "which flatters the figures. Remove them from one of the two, or quote both figures."
            )
    if unlabelled is not None and (leaked := int(among(unlabelled.keys, chosen["test"].keys).sum())):
        notes.append(
            f"Unlabelled rows that are test rows too: {leaked:,}; the student trains on what is measured. "
            "Remove them from the unlabelled rows."
        )
    return notes


def _torn(rows: Rows, repeats: Repeats) -> int:
    """Return how many texts that are repeated have more than one label."""
    torn = np.zeros(len(rows), dtype=np.bool_)
    for followers, first in repeats.followers() if rows.labels is not None else ():
        for row, leader in zip(followers.tolist(), first.tolist(), strict=True):
            torn[leader] |= rows.words[row] != rows.words[leader]
    return int(torn.sum())
