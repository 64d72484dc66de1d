"""Rows by split, as a source reads them."""

from __future__ import annotations

from dataclasses import dataclass

from compress.data.rows import Rows

SPLITS = ("train", "validation", "test", "unlabelled")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Rows by split; None for a split that the source does not have."""

    name: str
    train: Rows
    validation: Rows | None = None
    test: Rows | None = None
    unlabelled: Rows | None = None
    notes: tuple[str, ...] = ()

    def labelled(self) -> dict[str, Rows]:
        """Return the parts that have labels, by name; unlabelled rows never do."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows for name, rows in named.items() if rows is not None and rows.labels is not None}
