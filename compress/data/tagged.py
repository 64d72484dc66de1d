"""Rows with a tag for each word: lists of words and tags, or texts whose spans are given by characters.

Both become a text with spaces between its words, and as many tags with spaces between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.data.formats import Bad, kind_of
from compress.data.parquet import NoLabel, UnknownClass
from compress.tasks.division import divided, joined
from compress.tasks.tag_schemes import written
from compress.wording import counted, shortened

FORM = "tags"
"""The name of the task whose rows these are."""

SPANS = ("spans", "entities")
"""Columns in which an empty list marks nothing; in others it may be a row without labels."""

_ENDS = (("start", "start_offset", "begin"), ("end", "end_offset", "stop"), ("label", "type", "tag", "entity"))


@dataclass(frozen=True)
class TaggedRow:
    """A row's words and tags, each with spaces between; ``tags`` is None for a row without."""

    text: str
    tags: str | None
    widened: int = 0  # spans that began or ended inside a word, and now hold the whole of it


def is_tagged(text: object, label: object) -> bool:
    """Return whether the fields of a record hold words, or spans of a text."""
    if isinstance(text, list):
        return True
    return isinstance(text, str) and isinstance(label, list) and bool(label) and all(map(_looks_like_a_span, label))


def tagged_row(text: object, label: object, *, labelled: bool) -> TaggedRow | Bad:
    """Return a row of words and tags, or of a text and spans; see `is_tagged`."""
    if isinstance(text, list):
        return _of_words(text, label, labelled=labelled)
    assert isinstance(text, str)
    assert isinstance(label, list)
    return _of_spans(text, label)


def without_spans(text: str) -> TaggedRow:
    """Return the row of a text in which nothing is marked."""
    words = [text[start:stop] for start, stop in divided(text)]
    return TaggedRow(joined(words), " ".join(written(len(words), ())))


def _of_words(words: Sequence[object], tags: object, *, labelled: bool) -> TaggedRow | Bad:
    if not words:
        return Bad("the list of words is empty. Fill it, or remove the row.")
    for place, word in enumerate(words, 1):
        if not isinstance(word, str):
            return Bad(f"word {place} is {kind_of(word)}, not a string. Write each word as a string.")
        if not word.strip(" \t\r\n"):
            return Bad(f"word {place} is empty. Remove it, and its tag.")
    text = joined([word for word in words if isinstance(word, str)])
    if not labelled:
        return TaggedRow(text, None)
    given = tags.split() if isinstance(tags, str) else tags
    if not isinstance(given, list):
        return Bad(f"the tags are {kind_of(tags)}, not a list. Give a list with one tag per word.")
    if len(given) != len(words):
        return Bad(
            f"{counted(len(words), 'word')}, but {counted(len(given), 'tag')}, from {shortened(str(words[0]))!r} on. "
            "Give each word one."
        )
    written_tags = []
    for place, tag in enumerate(given, 1):
        word = f"word {place} ({shortened(str(words[place - 1]))!r})"
        if isinstance(tag, NoLabel) or tag is None or tag == "":
            return Bad(f"{word} has no tag. Give it one; O is the usual tag of what is nothing.")
        if isinstance(tag, UnknownClass):
            return Bad(f"{word}: {tag.reason}. Correct it, or write the file again.")
        if isinstance(tag, int):
            return Bad(
                f"the tag of {word} is the number {tag}, and its name is not known. Name the tags in the order of "
                "their numbers, 0 first: data.label_names=[O,B-NAME,…]; or write them as words."
            )
        if not isinstance(tag, str):
            return Bad(f"the tag of {word} is {kind_of(tag)}, not a word.")
        if len(tag.split()) != 1:
            return Bad(f"the tag {shortened(tag)!r} of {word} has white space in it. Write it without.")
        written_tags.append(tag.strip())
    return TaggedRow(text, " ".join(written_tags))


def _looks_like_a_span(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(any(name in value for name in names) for names in _ENDS)
    return isinstance(value, list) and len(value) == 3 and sum(isinstance(part, str) for part in value) == 1


def _of_spans(text: str, given: Sequence[Any]) -> TaggedRow | Bad:
    words = divided(text)
    if not words:
        return Bad("the text is empty. Fill it, or remove the row.")
    spans: list[tuple[int, int, str]] = []
    for place, value in enumerate(given, 1):
        span = _ends(value)
        if span is None or not 0 <= span[0] < span[1] <= len(text):
            return Bad(
                f"span {place} must have a start below its end, both within the {len(text):,} characters of the text, "
                f"and a label; got {shortened(str(value))}. Correct it: characters are counted from 0."
            )
        if len(span[2].split()) != 1:
            return Bad(f"the label {shortened(span[2])!r} of span {place} is empty or has white space in it.")
        if not text[span[0] : span[1]].strip():
            return Bad(f"span {place} holds white space only. Correct it, or remove it.")
        spans.append(span)
    found: list[tuple[str, int, int]] = []
    widened = 0
    for start, end, label in sorted(spans):
        inside = [number for number, (first, last) in enumerate(words) if first < end and last > start]
        if not inside:  # a mark without a word of its own
            return Bad(f"the span {text[start:end]!r} holds no word. Correct it, or remove it.")
        if found and inside[0] <= found[-1][2]:
            return Bad(
                f"the span {shortened(text[start:end])!r} shares a word with the one before it. A word has one tag: "
                "keep the right one."
            )
        edges = text[words[inside[0]][0] : start] + text[end : words[inside[-1]][1]]
        widened += bool(edges.strip())
        found.append((label, inside[0], inside[-1]))
    tags = written(len(words), found)
    return TaggedRow(joined([text[first:last] for first, last in words]), " ".join(tags), widened)


def _ends(value: Any) -> tuple[int, int, str] | None:
    """Return a span's start, end and label, of a dictionary or of a list of three; None where one is not there."""
    if isinstance(value, Mapping):
        parts = [next((value[name] for name in names if name in value), None) for names in _ENDS]
    elif isinstance(value, list) and len(value) == 3:
        parts = [*(part for part in value if not isinstance(part, str)), *(p for p in value if isinstance(p, str))]
    else:
        return None
    start, end, label = parts
    if isinstance(start, bool) or isinstance(end, bool) or not isinstance(label, str):
        return None
    return (start, end, label) if isinstance(start, int) and isinstance(end, int) else None
