"""Columns that are not used: listed, or, where one may be the second text of a pair, asked about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.data.columns import PAIRS, TEXTS
from compress.data.scripts import words_in
from compress.errors import DataError

LOOKED_AT = 2000  # rows from which a column is judged
WORDS = 3  # from this mean number of words on, a column holds texts
DIFFERENT = 0.2  # share of different values from which on it does
_SECONDS = frozenset(
    {"aspect", "entity", "topic", "target", "term", "title", "body", "headline", "summary", "query", "question"}
    | {"answer", "response", "reply", "context", "passage", "paragraph", "document", "claim", "evidence"}
    | {"premise", "hypothesis"}
)
_SECOND = re.compile(r"(?:text|sentence|sent|question|review|comment|utterance|phrase)s?[\W_]*(?:2|b|two)")


@dataclass
class Unused:
    """The columns of one file that are not used, and what the first rows hold in each."""

    names: Sequence[str]
    seen: dict[str, list[str]] = field(default_factory=dict)  # strings by column
    rows: int = 0

    def see(self, fields: Mapping[str, object]) -> None:
        """Look at one row; after enough of them, at none."""
        if self.rows < LOOKED_AT:
            self.rows += 1
            for name in self.names:
                value = fields.get(name)
                if isinstance(value, str) and value.strip():
                    self.seen.setdefault(name, []).append(value.strip())

    def second_text(self) -> str | None:
        """Return the first column that may be a second text: by its name, or by what it holds."""
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
    """Raise DataError where a column beside that of the texts may hold second texts, which would be dropped."""
    other = unused.second_text()
    if other is not None:
        raise DataError(
            f"{where}: the column {other!r} may hold second texts, which would be dropped. For rows of two texts: "
            f"data.text={_word(text)} data.text_pair={_word(other)}; for the one text alone: data.text={_word(text)}."
        )


def _word(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) else f"'{name}'"
