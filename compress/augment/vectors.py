"""Nearest words by word vectors, from a text file in the format of word2vec and GloVe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from compress.augment.words import is_word
from compress.errors import DataError
from compress.progress import progress
from compress.tasks.base import Array


@dataclass(frozen=True)
class Vectors:
    """Words and their vectors of length 1; ``places`` also finds words with case folded."""

    words: list[str]
    matrix: Array  # (words, units), float32
    places: dict[str, int]
    neighbours: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def nearest(self, word: str, number: int) -> list[str]:
        """Return the ``number`` other words with the largest cosine to ``word``; none if it is unknown."""
        place = self.places.get(word, self.places.get(word.casefold()))
        if place is None:
            return []
        if (word, number) not in self.neighbours:
            cosines = self.matrix @ self.matrix[place]
            taken = min(len(self.words), number + 1)
            near = np.argpartition(-cosines, taken - 1)[:taken]
            near = near[np.argsort(-cosines[near], kind="stable")]
            self.neighbours[word, number] = [self.words[other] for other in near if other != place][:number]
        return self.neighbours[word, number]


def read_vectors(path: Path, lines: int | None = None) -> Vectors:
    """Return the vectors of a file, or of its first ``lines``: a word and its numbers per line, separated by spaces.

    The first line may hold the numbers of words and units. Entries other than words (punctuation, links) are skipped.
    Raises DataError with the line that cannot be read.
    """
    words: list[str] = []
    rows: list[Array] = []
    units = 0
    for number, line in progress(islice(_lines(path), lines), title=None if lines else "word vectors", unit="line"):
        fields = line.split(" ")
        if number == 1 and len(fields) == 2 and all(part.isdecimal() for part in fields):
            units = int(fields[1])
            continue
        units = units or len(fields) - 1
        try:
            row = np.asarray(fields[-units:], dtype=np.float32)
        except ValueError:
            row = np.empty(0, np.float32)
        if len(fields) <= units or not units or len(row) != units or not np.isfinite(row).all():
            raise DataError(
                f"{path}, line {number}: expected a word and {units or 'its'} numbers, separated by spaces, as "
                "word2vec and GloVe write them."
            )
        word = " ".join(fields[:-units])
        if is_word(word) and row.any():
            words.append(word)
            rows.append(row / np.linalg.norm(row))
    if not words:
        raise DataError(f"{path}: has no vector of any word.")
    places: dict[str, int] = {}
    for key in (str, str.casefold):  # the first spelling counts
        for place, word in enumerate(words):
            places.setdefault(key(word), place)
    return Vectors(words, np.stack(rows), places)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from ((number, line.rstrip(" \r\n")) for number, line in enumerate(file, 1))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason}). Give the text form of the vectors.") from None
