"""Where the words of a text begin and end: in a row, whose words spaces divide, and in a text that people write."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

Extent = tuple[int, int]  # characters of a text: the first, and the one behind the last

INSIDE = "\u00a0"
"""What stands for white space inside a word: a no-break space, which divides no words."""

_WORD = re.compile(r"[^ \t\r\n]+")
_DIVIDING = re.compile(r"[ \t\r\n]+")
# in shapes, w is a letter, a mark or a digit, s the letter, c a sign of a script without spaces
_SHAPE = re.compile(r"['’]s(?![ws])|[@#]?[ws](?:[ws]|\.(?=[ws])|['’](?=[ws])(?!s(?![ws])))*|c|[^ ]")
_UNDIVIDED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")


def words_of(text: str) -> list[Extent]:
    """Return the words of a row's text, which spaces, tabs and line ends divide."""
    return [match.span() for match in _WORD.finditer(text)]


def joined(words: Sequence[str]) -> str:
    """Return words as the text of a row; white space inside a word becomes `INSIDE`."""
    return " ".join(_DIVIDING.sub(INSIDE, word.strip(" \t\r\n")) for word in words)


def divided(text: str) -> list[Extent]:
    """Return the words of a text as people write it: punctuation is apart, and so is each sign of Chinese or Japanese.

    Words keep the apostrophes and dots inside them, and the @ or # before them; a possessive 's is apart.
    """
    shape = "".join(map(_kind, text))
    return [match.span() for match in _SHAPE.finditer(shape)]


@lru_cache(maxsize=4096)
def _kind(sign: str) -> str:
    """Return what stands for a character in a shape."""
    if sign in "'’.@#":
        return sign
    if sign in "sS":
        return "s"
    if sign.isspace():
        return " "
    if _UNDIVIDED.match(sign):
        return "c"
    return "w" if sign == "_" or unicodedata.category(sign)[0] in "LMN" else "-"
