"""Files of columns, one word per line and an empty line between sentences, as CoNLL's tasks have them."""

from __future__ import annotations

import re
from pathlib import Path

from compress.data import columns
from compress.data.formats import Bad, Numbered, lines_of
from compress.errors import DataError
from compress.wording import counted

SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".conllu")
WORDS, TAGS = "tokens", "tags"  # the fields of its records
_UNIVERSAL = 10  # columns of CoNLL-U: the number of the word, the word, its lemma, its part of speech, …
_BLANK = " \t\r\n"
_WORD_NAMES = (*columns.TEXTS, "word", "words", "form")
_TAG_NAMES = (*columns.LABELS, *columns.TAGS, "ner", "pos", "upos", "xpos", "chunk", "slot")


def read_conll(path: Path, text: str | None = None, label: str | None = None, *, labelled: bool = True) -> Numbered:
    """Yield a sentence's words and tags as lists, with the line of its first word.

    Columns are divided by tabs, or by white space where line 1 has no tab. ``text`` and ``label`` are their numbers,
    from 1, or from -1 at the end; else words are in the first and tags in the last one, and in CoNLL-U's ten columns
    in the second and the fourth. Comments and -DOCSTART- lines are left out. Raises DataError for a number that is
    none of a column.
    """
    tabs: bool | None = None
    count = 0
    words: list[str] = []
    tags: list[str] = []
    start = 0
    for number, line in lines_of(path):
        if isinstance(line, Bad):
            yield number, line
            continue
        row = line.strip("\r\n")
        if not row.strip(_BLANK):
            if words:
                yield start, _record(words, tags, labelled)
                words, tags = [], []
            continue
        if row.lstrip().startswith("-DOCSTART-"):
            continue
        tabs = "\t" in row if tabs is None and not row.startswith("#") else tabs
        fields = row.split("\t") if tabs else row.split()
        if row.startswith("#") and not words and len(fields) != count:
            continue
        if not count:
            count = len(fields)
            places = _columns(path, count, text, label, labelled)
            if labelled and _names_columns(fields[places[0]], fields[places[1]]):
                names = " and ".join(repr(fields[place].strip(_BLANK)) for place in places)
                yield number, Bad(f"{names} are names of columns, and such a file has no header. Remove the line.")
                continue
        if len(fields) != count:
            divided = "tabs" if tabs else "white space"
            here = f"{counted(len(fields), 'column')} divided by {divided}"
            yield number, Bad(f"{here}, where the lines before have {count}. Write a word and its tag in each line.")
            continue
        if count == _UNIVERSAL and re.fullmatch(r"\d+[-.]\d+", fields[0]):
            continue  # a contraction whose parts follow, or a word that was left out of the text
        word, tag = fields[places[0]].strip(_BLANK), fields[places[1]].strip(_BLANK)
        if not word or (labelled and not tag):
            yield number, Bad(f"the {'tag' if word else 'word'} is empty. Fill it, or remove the line.")
            continue
        start = start if words else number
        words.append(word)
        tags.append(tag)
    if words:
        yield start, _record(words, tags, labelled)


def looks_like_conll(path: Path, most: int = 200) -> bool:
    """Return whether a file of tabs has sentences in its lines: empty lines between, and tags in the last column."""
    gaps, rows, marked = 0, 0, 0
    for number, line in lines_of(path):
        if isinstance(line, Bad) or number > most:
            break
        if not line.strip(_BLANK):
            gaps += rows > 0
        elif not line.startswith("#"):
            rows += 1
            marked += re.fullmatch(r"O|[BIELSU]-\S+", line.strip(_BLANK).split("\t")[-1]) is not None
    return gaps > 0 and marked == rows


def _names_columns(word: str, tag: str) -> bool:
    """Return whether a line is a header rather than a word and its tag."""
    return word.strip(_BLANK).casefold() in _WORD_NAMES and tag.strip(_BLANK).casefold() in _TAG_NAMES


def _record(words: list[str], tags: list[str], labelled: bool) -> dict[str, object]:
    return {WORDS: words, TAGS: tags} if labelled else {WORDS: words}


def _columns(path: Path, count: int, text: str | None, label: str | None, labelled: bool) -> tuple[int, int]:
    """Return the places of words and tags in a line of that many columns."""
    usual = (1, 3) if count == _UNIVERSAL else (0, count - 1)
    places = []
    for setting, given, place in (("text", text, usual[0]), ("label", label, usual[1])):
        if given is None:
            places.append(place)
            continue
        number = int(given) if re.fullmatch(r"-?\d+", given) else 0
        if not 1 <= abs(number) <= count:
            raise DataError(
                f"{path}: data.{setting}={given} is not one of its {count} columns, which have no names. "
                f"Give a number from 1 to {count}, or from -1 at the end."
            )
        places.append(number - 1 if number > 0 else count + number)
    if labelled and places[0] == places[1]:
        raise DataError(
            f"{path}: words and tags are both read from column {places[0] + 1} of {count}. A line needs a word and its "
            "tag; name their columns by number: data.text=1 data.label=2."
        )
    return places[0], places[1]
