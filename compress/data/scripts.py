"""Scripts without spaces between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan. Korean does."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

import numpy as np

from compress.data.jieba_words import jieba_words, version

MOSTLY = 0.5  # share of such letters from which texts count as unsegmented
LOOKED_AT = 2000  # texts that are inspected

UNSEGMENTED = (
    "[\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf"  # Tai Le, New Tai Lue, Tai Tham
    "\u3005-\u3007\u3031-\u3035\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Hiragana, Katakana
    "\u2e80-\u2fdf\u3100-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U0001b000-\U0001b16f"  # Han, Bopomofo
    "\U00020000-\U0003fffd]"
)
"""A regular expression for a letter of such scripts."""
_UNSEGMENTED = re.compile(UNSEGMENTED)


class Segmentation(Enum):
    """What counts as a word where no space divides them. letters: each letter; jieba: the Chinese words jieba finds."""

    letters = "letters"
    jieba = "jieba"

    @property
    def key(self) -> list[str]:
        """What work that reads words depends on besides the rows; nothing where letters are words."""
        return [] if self is Segmentation.letters else [f"{self.value} {version()}"]


def unsegmented_letters(text: str) -> int:
    """Return how many letters of a text belong to scripts without spaces between words."""
    return len(_UNSEGMENTED.findall(text))


def unsegmented_places(text: str, words: Segmentation = Segmentation.letters) -> Iterator[tuple[int, int]]:
    """Yield where each word of such scripts begins and ends, with the vowel signs and accents that follow it."""
    places: Iterable[tuple[int, int]] = (match.span() for match in _UNSEGMENTED.finditer(text))
    if words is Segmentation.jieba:
        ends = dict(jieba_words(text))
        places = ((begin, ends.get(begin, end)) for begin, end in places)
    end = 0
    for begin, behind in places:
        if begin < end:
            continue
        end = behind
        while end < len(text) and unicodedata.category(text[end]).startswith("M"):
            end += 1
        yield begin, end


def word_places(text: str, words: Segmentation = Segmentation.letters) -> Iterator[tuple[int, int]]:
    """Yield where each word begins and ends: what stands between white space, and each word of such scripts."""
    for chunk in re.finditer(r"\S+", text):
        start = chunk.start()
        for begin, end in unsegmented_places(chunk[0], words):
            if start < chunk.start() + begin:
                yield start, chunk.start() + begin
            yield chunk.start() + begin, chunk.start() + end
            start = chunk.start() + end
        if start < chunk.end():
            yield start, chunk.end()


def unsegmented_share(texts: Iterable[str]) -> float:
    """Return the share of all letters that belong to such scripts; 0.0 where there are no letters."""
    letters = unsegmented = 0
    for text in texts:
        mine = unsegmented_letters(text)
        letters += mine + sum(map(str.isalpha, _UNSEGMENTED.sub("", text)))
        unsegmented += mine
    return unsegmented / letters if letters else 0.0


def is_unsegmented(texts: Sequence[str]) -> bool:
    """Return whether most letters belong to such scripts, judged by an even sample of the texts."""
    places = np.linspace(0, len(texts) - 1, min(LOOKED_AT, len(texts))).round().astype(int)
    return unsegmented_share(texts[int(place)] for place in places) >= MOSTLY


def words_in(text: str) -> int:
    """Return roughly how many words a text has: pieces between spaces, or two letters each if there are none."""
    letters = unsegmented_letters(text)
    return len(_UNSEGMENTED.sub(" ", text).split()) + (letters + 1) // 2
