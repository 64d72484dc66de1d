"""Texts as words that can be exchanged, joined again exactly as they were written.

A word is what stands between white space; punctuation at either end of it is a word of its own, so that
"great!" is two words and "doesn't" one, and texts that are divided already ("does n't") stay as they are.
Handles, hashtags and links are kept whole. Scripts that put no space between words are not divided;
`script_faults` refuses them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from compress.data.dataset import Dataset
from compress.data.scripts import is_unsegmented
from compress.errors import Fault

CLITICS = frozenset({"s", "m", "d", "t", "re", "ve", "ll"})  # of 's, 'm, … where they stand alone
KINDS = {"@": "handle", "#": "hashtag"}
_LINK = re.compile(r"(?:https?://|www\.)\S", re.IGNORECASE)


class Words(NamedTuple):
    """A text's words in order; ``gaps[i]`` is the white space before word i, ``starts[i]`` its place in the text."""

    words: list[str]
    gaps: list[str]
    starts: list[int]


def cut(text: str) -> Words:
    """Return the words of a text."""
    found = Words([], [], [])
    end = 0
    for chunk in re.finditer(r"\S+", text):
        start = chunk.start()
        for piece in _pieces(chunk[0]):
            found.words.append(piece)
            found.gaps.append(text[end:start])
            found.starts.append(start)
            start = end = start + len(piece)
    return found


def joined(words: Sequence[str], gaps: Sequence[str]) -> str:
    """Return the text of words with their gaps, without white space at either end."""
    return "".join(gap + word for gap, word in zip(gaps, words, strict=True)).strip()


def kind(word: str) -> str:
    """Return "handle", "hashtag" or "link" for what is no word of a language, "" for everything else."""
    if len(word) > 1 and word[0] in KINDS:
        return KINDS[word[0]]
    return "link" if _LINK.match(word) else ""


def is_word(word: str) -> bool:
    """Say whether something is a word of a language: letters or digits, and neither handle, hashtag nor link."""
    return not kind(word) and any(character.isalnum() for character in word)


def written_as(word: str, like: str) -> str:
    """Return a word with a capital, or in capitals, where ``like`` has them."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def script_faults(data: Dataset) -> Iterator[Fault]:
    """Yield a fault where most training texts have no spaces between words: a text would count as one word."""
    if is_unsegmented(data.train.texts) or (data.train.pairs is not None and is_unsegmented(data.train.pairs)):
        rule = "changes words, and the training texts are in a script without spaces between words"
        yield Fault("", None, rule, "Leave this augmentation out: its words cannot be told apart here.")


def _pieces(chunk: str) -> Iterator[str]:
    """Yield the parts of what stands between white space: punctuation, the word, punctuation."""
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
