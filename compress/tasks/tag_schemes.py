"""How tags mark spans of words: BIO, IOBES and its other spellings, or none; read as CoNLL's evaluation reads them.

A tag is O, or a position and a type: ``B-person``. Positions are B(egin), I(nside), E(nd) and S(ingle); L(ast) and
U(nit) of BILOU and M(iddle) of BMES are other names of E, S and I. Spans are found as conlleval and ``seqeval`` find
them, whose default forgives what breaks the scheme: any run of words of a type is a span, and B, S, and whatever
follows E or S begin a new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

OUTSIDE = "O"
STRAY = 0.1  # share of the words up to which tags of no scheme are taken for mistakes
NONE, BEGIN, INSIDE, END, SINGLE = range(5)
"""Positions as numbers; `NONE` is that of O, and of a word without an answer."""
_POSITIONS = {"B": BEGIN, "I": INSIDE, "M": INSIDE, "E": END, "L": END, "S": SINGLE, "U": SINGLE}
_MARKED = re.compile(r"([BIMELSU])-(\S+)")

_STARTS = np.zeros((5, 5), dtype=bool)  # (position before, position): whether a span begins, if the types are the same
_STARTS[:, [BEGIN, SINGLE]] = True
_STARTS[np.ix_([NONE, END, SINGLE], [INSIDE, END])] = True


class Scheme(Enum):
    """bio: spans of B and I; iobes: spans of B, I, E, or of S alone; raw: a tag for each word, as parts of speech."""

    bio = "bio"
    iobes = "iobes"
    raw = "raw"


@dataclass(frozen=True)
class Spans:
    """The tags of a task as numbers: each tag's position and type."""

    tags: tuple[str, ...]

    @cached_property
    def scheme(self) -> Scheme:
        """What the tags are written in."""
        return scheme_of(self.tags)

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The types of spans, in alphabetical order; of a raw set, the tags themselves."""
        if self.scheme is Scheme.raw:
            return self.tags
        return tuple(sorted({parted(tag)[1] for tag in self.tags} - {""}))

    @cached_property
    def positions(self) -> Array:
        """The position of each tag (tags,), then that of a word without an answer, which is read as number -1."""
        return np.array([*(parted(tag)[0] for tag in self.tags), NONE])

    @cached_property
    def kinds(self) -> Array:
        """The number of each tag's type (tags,), -1 for O and for a word without an answer."""
        number = {name: index for index, name in enumerate(self.types)}
        return np.array([*(number.get(parted(tag)[1], -1) for tag in self.tags), -1])

    def bounds(self, numbers: Array) -> tuple[Array, Array]:
        """Return which words begin a span (rows, words), and the last word of the span that a word lies in.

        ``numbers`` are those of tags, -1 for a word without one, which no span covers.
        """
        positions, kinds = self.positions[numbers], self.kinds[numbers]
        before = np.pad(positions, ((0, 0), (1, 0)))[:, :-1]
        kind_before = np.pad(kinds, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
        starts = (positions != NONE) & (_STARTS[before, positions] | (kinds != kind_before))
        following = np.pad(positions, ((0, 0), (0, 1)))[:, 1:]
        breaks = np.pad(starts, ((0, 0), (0, 1)))[:, 1:] | (following == NONE)
        places = np.where((positions != NONE) & breaks, np.arange(numbers.shape[1]), numbers.shape[1])
        last = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
        return starts, last

    @cached_property
    def legal(self) -> Array:
        """Which tag may follow which (tags + 1, tags + 1): row -1 is the start of a row, column -1 its end."""
        allowed = np.ones((len(self.tags) + 1, len(self.tags) + 1), dtype=bool)
        if self.scheme is Scheme.raw:
            return allowed
        positions, kinds = self.positions, self.kinds
        goes_on = np.isin(positions, [INSIDE, END])[None, :] & (kinds[:, None] == kinds[None, :])
        opened = np.isin(positions, [BEGIN, INSIDE])[:, None]
        continues = np.isin(positions, [INSIDE, END])[None, :]
        bio = self.scheme is Scheme.bio
        found: Array = ~continues | (opened & goes_on) if bio else np.where(opened, goes_on, ~continues)
        return found


def parted(tag: str) -> tuple[int, str]:
    """Return a tag's position and type; that of O, and of a tag of no scheme, are `NONE` and nothing."""
    match = _MARKED.fullmatch(tag)
    return (NONE, "") if match is None else (_POSITIONS[match[1]], match[2])


def scheme_of(tags: Iterable[str]) -> Scheme:
    """Return the scheme of all tags of a data set: raw unless each is O or has a position."""
    known = set(tags)
    marked = [_MARKED.fullmatch(tag) for tag in known - {OUTSIDE}]
    if not marked or not all(marked):
        return Scheme.raw
    letters = {match[1] for match in marked if match}
    return Scheme.bio if letters <= {"B", "I"} else Scheme.iobes


def follows_scheme(tags: Iterable[str]) -> bool:
    """Return whether tags mark spans."""
    return scheme_of(tags) is not Scheme.raw


def strays(counts: Mapping[str, int]) -> list[str]:
    """Return the tags that fit no scheme, the rarest first, where nearly all words have one that does; else none.

    ``counts`` are words by tag. The spans of all the others would be lost for a few words that are wrong.
    """
    fitting = {tag for tag in counts if tag == OUTSIDE or _MARKED.fullmatch(tag)}
    odd = sorted(counts.keys() - fitting, key=lambda tag: (counts[tag], tag))
    marked = any(parted(tag)[0] in (BEGIN, SINGLE) for tag in fitting)
    return odd if marked and sum(counts[tag] for tag in odd) <= STRAY * sum(counts.values()) else []


def in_small_letters(tags: Iterable[str]) -> bool:
    """Return whether tags mark spans except for small letters, as ``b-person``."""
    known = set(tags)
    return not follows_scheme(known) and follows_scheme(tag[:1].upper() + tag[1:] for tag in known)


def spans_of(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the spans of a row as (type, first word, last word)."""
    found: list[tuple[str, int, int]] = []
    before, kind_before = NONE, ""
    for place, tag in enumerate(tags):
        position, kind = parted(tag)
        if position != NONE:
            if _STARTS[before, position] or kind != kind_before:
                found.append((kind, place, place))
            else:
                found[-1] = (kind, found[-1][1], place)
        before, kind_before = position, kind
    return found


def written(words: int, spans: Iterable[tuple[str, int, int]], letters: str = "BI") -> list[str]:
    """Return the tags of a row of that many words; ``letters`` are BI, or those of B, I, E and S in this order."""
    tags = [OUTSIDE] * words
    for kind, first, last in spans:
        tags[first : last + 1] = [f"{letters[INSIDE - 1]}-{kind}"] * (last + 1 - first)
        tags[first] = f"{letters[BEGIN - 1]}-{kind}"
        if len(letters) > 2:
            tags[last] = f"{letters[(SINGLE if first == last else END) - 1]}-{kind}"
    return tags


def letters_of(tags: Iterable[str]) -> str:
    """Return what `written` takes to write in the scheme and spelling of these tags."""
    known = set(tags)
    if scheme_of(known) is not Scheme.iobes:
        return "BI"
    used = {tag[0] for tag in known - {OUTSIDE}}
    middle = "M" if "M" in used else "I"
    end, single = ("L" if "L" in used else "E"), ("U" if "U" in used else "S")
    return f"B{middle}{end}{single}"
