"""Synonyms from a table: pairs of words, or a word, its part of speech and all of its synonyms."""

from __future__ import annotations

from pathlib import Path

from compress.augment.words import is_word
from compress.data.formats import Bad, read_tsv
from compress.errors import DataError

FORMS = "word<TAB>synonym, or word<TAB>part of speech<TAB>synonyms separated by spaces"


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """Return the synonyms of each word, case folded, in the order of the file; parts of speech are merged.

    A first line that begins with "word" is a header. Raises DataError with the line that cannot be read.
    """
    table: dict[str, dict[str, None]] = {}
    columns = 0
    for number, fields in read_tsv(path):
        place = f"{path}, line {number}"
        if isinstance(fields, Bad):
            raise DataError(f"{place}: {fields.reason}")
        if isinstance(fields, dict) or len(fields) not in {2, 3} or columns not in {0, len(fields)}:
            wanted = f"the {columns} fields of the lines before" if columns else FORMS
            raise DataError(f"{place}: expected {wanted}; got {len(fields)} fields.")
        first = not columns
        columns = len(fields)
        if first and fields[0].strip().casefold() == "word":
            if fields[-1].strip().casefold() not in {"synonym", "synonyms"}:
                raise DataError(f"{place}: the last column is called {fields[-1]!r}, not synonyms.")
            continue
        word = fields[0].strip().casefold()
        synonyms = [fields[1].strip()] if columns == 2 else fields[2].split()
        if not word or not all(synonyms):
            raise DataError(f"{place}: a field is empty. Each line holds {FORMS}.")
        known = table.setdefault(word, {})
        known.update((synonym, None) for synonym in synonyms if synonym.casefold() != word and is_word(synonym))
    if not any(table.values()):
        raise DataError(f"{path}: has no synonyms. Each line holds {FORMS}.")
    return {word: list(synonyms) for word, synonyms in table.items() if synonyms}
