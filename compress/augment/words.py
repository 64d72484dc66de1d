"""Texts as words that can be replaced, and joined again exactly as they were written.

White space separates words; punctuation at either end is a word of its own, so that
"great!" is two words and "doesn't" one. Texts that are tokenised already ("does n't") stay the same.
Handles, hashtags and links are kept whole. Of scripts without spaces between words, as Chinese, Japanese
and Thai, each letter is a word, with the vowel signs and accents that belong to it; Chinese can be cut by jieba.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from compress.data.dataset import Dataset
from compress.data.scripts import Segmentation, is_unsegmented, unsegmented_places

CLITICS = frozenset({"s", "m", "d", "t", "re", "ve", "ll"})  # of 's, 'm, … as words of their own
KINDS = {"@": "handle", "#": "hashtag"}
_LINK = re.compile(r"(?:https?://|www\.)\S", re.IGNORECASE)


class Words(NamedTuple):
    """A text's words in order; ``gaps[i]`` is the white space before word i, ``starts[i]`` its position in the text."""

    words: list[str]
    gaps: list[str]
    starts: list[int]


def cut(text: str, words: Segmentation = Segmentation.letters) -> Words:
    """Return the words of a text; ``words`` says what they are where no space divides them."""
    result = Words([], [], [])
    end = 0
    for chunk in re.finditer(r"\S+", text):
        start = chunk.start()
        for piece in _pieces(chunk[0], words):
            result.words.append(piece)
            result.gaps.append(text[end:start])
            result.starts.append(start)
            start = end = start + len(piece)
    return result


def joined(words: Sequence[str], gaps: Sequence[str]) -> str:
    """Return words and gaps as one text, without white space at either end."""
    return "".join(gap + word for gap, word in zip(gaps, words, strict=True)).strip()


def kind(word: str) -> str:
    """Return "handle", "hashtag" or "link" for these, and "" for everything else."""
    if len(word) > 1 and word[0] in KINDS:
        return KINDS[word[0]]
    return "link" if _LINK.match(word) else ""


def is_word(word: str) -> bool:
    """Return whether a piece is a word of a language: letters or digits, but no handle, hashtag or link."""
    return not kind(word) and any(character.isalnum() for character in word)


def is_letters(word: str) -> bool:
    """Return whether a piece has letters alone, with the marks that belong to them: no digit, apostrophe or hyphen."""
    return word[:1].isalpha() and all(c.isalpha() or unicodedata.category(c).startswith("M") for c in word)


def written_as(word: str, like: str) -> str:
    """Return a word capitalised, or in capitals, like ``like``."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def lack_spaces(data: Dataset) -> bool:
    """Return whether most training texts are of scripts without spaces between words."""
    return is_unsegmented(data.train.texts) or (data.train.pairs is not None and is_unsegmented(data.train.pairs))


def _pieces(chunk: str, words: Segmentation) -> Iterator[str]:
    """Yield the words of a piece between white space."""
    start = 0
    for begin, end in unsegmented_places(chunk, words):
        yield from _spaced(chunk[start:begin])
        yield chunk[begin:end]
        start = end
    yield from _spaced(chunk[start:])


def _spaced(chunk: str) -> Iterator[str]:
    """Yield the parts of what has no words of such scripts: punctuation, the word, punctuation."""
    if not chunk:
        return
    letters = [place for place, character in enumerate(chunk) if character.isalnum()]
    if not letters:
        yield chunk
        return
    first, end = letters[0], letters[-1] + 1
    while end < len(chunk) and unicodedata.category(chunk[end]).startswith("M"):
        end += 1  # a vowel sign or an accent belongs to its letter
    before = chunk[first - 1] if first else ""
    if before in KINDS or (before in {"'", "’"} and chunk[first:end].casefold() in CLITICS):
        first -= 1
    yield from (part for part in (chunk[:first], chunk[first:end], chunk[end:]) if part)
