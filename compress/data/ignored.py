"""Columns that are not used: listed, or refused if one may hold the second text of a pair."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.data.columns import PAIRS, TEXTS
from compress.data.scripts import words_in
from compress.errors import DataError

LOOKED_AT = 2000  # rows that are inspected
WORDS = 3  # mean number of words from which a column holds texts
DIFFERENT = 0.2  # share of different values from which a column holds texts
_SECONDS = frozenset(
    {"aspect", "entity", "topic", "target", "term", "title", "body", "headline", "summary", "query", "question"}
    | {"answer", "response", "reply", "context", "passage", "paragraph", "document", "claim", "evidence"}
    | {"premise", "hypothesis"}
)
_SECOND = re.compile(r"(?:text|sentence|sent|question|review|comment|utterance|phrase)s?[\W_]*(?:2|b|two)")


@dataclass
class Unused:
    """The unused columns of one file, with their values in the first rows."""

    names: Sequence[str]
    seen: dict[str, list[str]] = field(default_factory=dict)  # strings by column
    rows: int = 0

    def see(self, fields: Mapping[str, object]) -> None:
        """Inspect one row; does nothing after enough of them."""
        if self.rows < LOOKED_AT:
            self.rows += 1
            for name in self.names:
                value = fields.get(name)
                if isinstance(value, str) and value.strip():
                    self.seen.setdefault(name, []).append(value.strip())

    def second_text(self) -> str | None:
        """Return the first column that may hold second texts, by its name or its values."""
        return next((name for name in self.names if self._is_text(name)), None)

    def _is_text(self, name: str) -> bool:
        values = self.seen.get(name, [])
        characters = sum(len(re.sub(r"\s", "", value)) for value in values)
        letters = sum(sum(map(str.isalpha, value)) for value in values)
        if len(values) * 2 < self.rows or letters * 2 < characters:
            return False  # mostly empty, or numbers and dates
        free = sum(map(words_in, values)) >= WORDS * len(values) and len(set(values)) >= DIFFERENT * len(values) > 0
        return free or _named_as_one(name)


def _named_as_one(name: str) -> bool:
    words = set(re.split(r"[\W_]+", name.strip().casefold()))
    known = name.strip().casefold() in TEXTS + PAIRS
    return known or bool(words & _SECONDS) or _SECOND.fullmatch(name.strip().casefold()) is not None


def ask_about_second_text(unused: Unused, text: str, where: str) -> None:
    """Raise DataError if another column may hold second texts, which would be dropped."""
    other = unused.second_text()
    if other is not None:
        raise DataError(
            f"{where}: the column {other!r} may hold second texts, which would be dropped. If rows have two texts: "
            f"data.text={_word(text)} data.text_pair={_word(other)}; for the one text alone: data.text={_word(text)}."
        )


def _word(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) else f"'{name}'"
