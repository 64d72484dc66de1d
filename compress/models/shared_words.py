"""Words that two tokenizers share: the smallest parts of a text at whose ends both of them begin a new piece."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compress.data.dataset import Split
from compress.data.scripts import Segmentation, word_places
from compress.mapped import MappedColumn
from compress.models.windows import trimmed
from compress.tasks.base import Array

CHUNK = 1000  # rows tokenized at once
NONE = -1  # the word of a token that is of none
Piece = tuple[int, int, int, int]
"""First character and end of a piece, which tokenizer's it is, and its place in the row."""


@dataclass(frozen=True)
class WordNumbers:
    """The word of each token of one tokenizer; those of row r are ``flat[offsets[r]:offsets[r + 1]]``."""

    flat: Array
    offsets: Array

    def batch(self, rows: Array) -> Tensor:
        """Return the numbers (batch, tokens), `NONE` behind the last token of a row."""
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        padded = np.full((len(rows), int((ends - starts).max())), NONE, dtype=np.int64)
        for own, start, end in zip(padded, starts, ends, strict=True):
            own[: end - start] = self.flat[start:end]
        return torch.from_numpy(padded)


@dataclass(frozen=True)
class AlignedWords:
    """The words of rows, by the tokens of a student and of its teacher.

    Word 0 is the special token before the first text, such as [CLS]. The others are the smallest parts of the texts
    that both cut out: pieces belong to one word where they have a character in common. White space, other special
    tokens, and what either has cut off belong to no word.
    """

    student: WordNumbers
    teacher: WordNumbers

    @property
    def share(self) -> float:
        """The share of the student's tokens that belong to a word."""
        return float((self.student.flat >= 0).mean())


def shared_words(rows: Split, tokenizers: tuple[Any, Any], most: tuple[int, int]) -> AlignedWords:
    """Return the words of rows that a student's and a teacher's tokenizer share.

    ``most`` are the tokens at which each cuts a row.
    """
    flat, offsets = (tuple(MappedColumn(kind) for _ in most) for kind in (np.int32, np.int64))
    ends = [0, 0]
    for column in offsets:
        column.append([0])
    for start in range(0, len(rows), CHUNK):
        texts = list(rows.texts[start : start + CHUNK])
        pairs = None if rows.pairs is None else list(rows.pairs[start : start + CHUNK])
        encodings = [
            tokenizer(texts, pairs, truncation=True, max_length=limit).encodings
            for tokenizer, limit in zip(tokenizers, most, strict=True)
        ]
        seconds: Sequence[str] = [""] * len(texts) if pairs is None else pairs
        for both, *row in zip(zip(texts, seconds, strict=True), *encodings, strict=True):
            for side, numbers in enumerate(_numbered(both, row)):
                flat[side].append(numbers)
                ends[side] += len(numbers)
                offsets[side].append([ends[side]])
    student, teacher = (WordNumbers(*(part.mapped() for part in own)) for own in zip(flat, offsets, strict=True))
    return AlignedWords(student, teacher)


def first_tokens(rows: Split, tokenizer: Any, most: int, words: Segmentation = Segmentation.letters) -> WordNumbers:
    """Return, for each token of rows cut at ``most``, the place in the row of the first token of its word.

    Words are those of `compress.data.scripts.word_places`: between white space, and of scripts without any what
    ``words`` says. A token in several words, as of a piece with two letters, joins them. Special tokens are their own.
    """
    flat, offsets, end = MappedColumn(np.int32), MappedColumn(np.int64), 0
    offsets.append([0])
    for start in range(0, len(rows), CHUNK):
        texts = list(rows.texts[start : start + CHUNK])
        pairs = None if rows.pairs is None else list(rows.pairs[start : start + CHUNK])
        encodings = tokenizer(texts, pairs, truncation=True, max_length=most).encodings
        seconds: Sequence[str] = [""] * len(texts) if pairs is None else pairs
        for both, encoding in zip(zip(texts, seconds, strict=True), encodings, strict=True):
            flat.append(_first(both, encoding, words))
            end += len(encoding)
            offsets.append([end])
    return WordNumbers(flat.mapped(), offsets.mapped())


def _first(texts: Sequence[str], encoding: Any, words: Segmentation) -> Array:
    """Return the place of the first token of each token's word in a row."""
    found = np.arange(len(encoding), dtype=np.int32)
    for number, text in enumerate(texts):
        ends = [end for _, end in word_places(text, words)]
        before: tuple[int, int] | None = None  # the word that the last piece ended in, and its first token
        for place, (side, (start, stop)) in enumerate(zip(encoding.sequence_ids, encoding.offsets, strict=True)):
            if side != number:
                continue
            begin, behind = trimmed(text, start, stop)
            if begin >= behind:
                continue
            word, last = bisect_right(ends, begin), bisect_right(ends, behind - 1)
            if before is not None and before[0] == word:
                found[place] = before[1]
            before = last, int(found[place])
    return found


def _numbered(texts: Sequence[str], encodings: Sequence[Any]) -> list[Array]:
    """Return the word of each token of a row, for each of two encodings of the ``tokenizers`` package."""
    numbers = [np.full(len(encoding), NONE, dtype=np.int32) for encoding in encodings]
    sides = [encoding.sequence_ids for encoding in encodings]
    if all(side[0] is None for side in sides):
        for own in numbers:
            own[0] = 0
    words = 1
    for number, text in enumerate(texts):
        pieces: list[Piece] = []
        for which, encoding in enumerate(encodings):
            for place, (side, (start, stop)) in enumerate(zip(sides[which], encoding.offsets, strict=True)):
                if side == number:
                    first, end = trimmed(text, start, stop)
                    pieces += [(first, end, which, place)] if first < end else []
        for word in _joined(sorted(pieces)):
            if len({which for _, _, which, _ in word}) == len(encodings):
                for _, _, which, place in word:
                    numbers[which][place] = words
                words += 1
    return numbers


def _joined(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces, in order of their first characters, that are joined by characters in common."""
    word: list[Piece] = []
    end = 0
    for piece in pieces:
        if word and piece[0] >= end:
            yield word
            word = []
        word.append(piece)
        end = max(end, piece[1]) if len(word) > 1 else piece[1]
    if word:
        yield word


def pooled(values: Tensor, numbers: Tensor, words: int) -> Tensor:
    """Return the mean over the tokens of each word, (batch, words, width), of values (batch, tokens, width).

    ``numbers`` (batch, tokens) are the tokens' words; a word without tokens is 0.
    """
    member = functional.one_hot(numbers + 1, words + 1)[..., 1:].to(values.dtype)
    shares = member / member.sum(1, keepdim=True).clamp(min=1)
    return shares.transpose(1, 2) @ values
