"""Rows as words that two tokenizers cut into pieces, and mixtures of both."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.data.dataset import Split
from compress.errors import ModelError
from compress.models.loading import quiet
from compress.models.tokens import CHUNK, Tokens
from compress.tasks.base import Array


@dataclass(frozen=True)
class Cutting:
    """The pieces of one tokenizer for all words: those of word w are ``ids[starts[w]:starts[w + 1]]``."""

    ids: Array
    starts: Array
    ends: tuple[int, int]  # special tokens before and after a row

    def words(self, first: int, last: int) -> Array:
        """Return the pieces of the words from ``first`` to below ``last``."""
        pieces: Array = self.ids[self.starts[first] : self.starts[last]]
        return pieces


@dataclass(frozen=True)
class SharedWords:
    """Rows of words, as the pieces of teacher and student; row r has the words ``rows[r]`` to below ``rows[r+1]``."""

    teacher: Cutting
    student: Cutting
    rows: Array
    cut: int  # rows that were longer than the limit

    def mixed(self, row: int, ours: Array, offset: int) -> tuple[Array, Array]:
        """Return a row's pieces between the teacher's special tokens, and which of them are the student's.

        ``ours`` (words,) says which words are cut as the student does; ``offset`` is added to its numbers.
        """
        first = int(self.rows[row])
        ids, sides = [np.array(self.teacher.ends[:1])], [np.array([False])]
        for word, own in enumerate(ours.tolist(), start=first):
            pieces = (self.student if own else self.teacher).words(word, word + 1)
            ids.append(pieces + offset if own else pieces)
            sides.append(np.full(len(pieces), own))
        ids.append(np.array(self.teacher.ends[1:]))
        sides.append(np.array([False]))
        return np.concatenate(ids).astype(np.int64), np.concatenate(sides)

    def count(self, row: int) -> int:
        """Return how many words a row has."""
        return int(self.rows[row + 1] - self.rows[row])

    def tokens(self, tokenizer: Any) -> Tokens:
        """Return the rows as the student's tokens alone."""
        before, after = self.student.ends
        rows = [
            np.concatenate([[before], self.student.words(first, last), [after]])
            for first, last in zip(self.rows[:-1], self.rows[1:], strict=True)
        ]
        ids = np.concatenate(rows).astype(np.int32)
        columns = {name: ids if name == "input_ids" else np.zeros_like(ids) for name in tokenizer.model_input_names}
        columns.pop("attention_mask", None)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return Tokens(columns, offsets, {"input_ids": tokenizer.pad_token_id, "token_type_ids": 0}, None, self.cut)


def words_of(split: Split, teacher: Any, student: Any, max_tokens: int) -> SharedWords:
    """Return the words of all texts; of pairs, each text is a row of its own.

    A row ends before the word with which a mixture could be longer than ``max_tokens``. Raises ModelError where
    the tokenizers do not agree on what a word is.
    """
    texts = [*split.texts, *(split.pairs or ())]
    ids, starts, rows = [array("q"), array("q")], [array("q", [0]), array("q", [0])], array("q", [0])
    cut = 0
    with quiet():
        for start in range(0, len(texts), CHUNK):
            encoded = [
                tokenizer(texts[start : start + CHUNK], add_special_tokens=False, verbose=False).encodings
                for tokenizer in (teacher, student)
            ]
            for both in zip(*encoded, strict=True):
                theirs, ours = (_grouped(encoding) for encoding in both)
                if len(theirs) != len(ours):
                    raise ModelError("teacher and student divide texts into different words: they cannot be mixed.")
                longest = np.cumsum([max(len(a), len(b)) for a, b in zip(theirs, ours, strict=True)])
                keep = int(np.searchsorted(longest, max_tokens - 2, side="right"))
                cut += keep < len(theirs)
                for side, words in enumerate((theirs, ours)):
                    for word in words[:keep]:
                        ids[side].extend(word)
                        starts[side].append(len(ids[side]))
                rows.append(rows[-1] + keep)
    known, own = (
        Cutting(np.array(ids[side]), np.array(starts[side]), _ends(tokenizer))
        for side, tokenizer in enumerate((teacher, student))
    )
    return SharedWords(known, own, np.array(rows), cut)


def _grouped(encoding: Any) -> list[list[int]]:
    """Return the pieces of each word."""
    words: list[list[int]] = []
    last = None
    for number, word in zip(encoding.ids, encoding.word_ids, strict=True):
        if word != last or word is None:
            words.append([])
        words[-1].append(number)
        last = word
    return words


def _ends(tokenizer: Any) -> tuple[int, int]:
    ends = tokenizer("")["input_ids"]
    if len(ends) != 2:
        raise ModelError("a row must stand between two special tokens for vocabularies to be mixed.")
    return ends[0], ends[1]
