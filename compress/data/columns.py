"""Find the columns of a file or data set that hold the text, the second text and the label."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from compress.errors import DataError
from compress.settings import nearest

LABELS = ("label", "labels", "target", "relevance", "score", "intent", "sentiment", "spans", "entities", "answers")
TAGS = ("tags", "ner_tags", "pos_tags", "chunk_tags", "slots", "slot_tags")
TEXTS = ("text", "text_a", "sentence1", "premise", "question1", "question", "sentence", "tokens", "words", "query")
PAIRS = ("text_b", "text_pair", "sentence2", "hypothesis", "question2")
CANDIDATES = ("candidate", "passage", "document")
GROUPS = ("group", "query_id", "qid", "record")


def is_header(fields: Sequence[str]) -> bool:
    """Return whether a first row holds column names rather than a text."""
    return any(field.strip().casefold() in LABELS + TAGS + TEXTS + PAIRS for field in fields)


def choose(
    names: Sequence[str],
    text: str | None,
    pair: str | None,
    label: str | None,
    *,
    where: str,
    labelled: bool,
    hint: str = "",
) -> tuple[str, str | None, str | None]:
    """Return the columns (text, pair, label) out of ``names``; a setting that is None is recognised by name.

    If ``text`` is set, there is a second text only if ``pair`` is set too. ``hint`` ends the message
    about a missing label.
    """
    for setting, name in (("text", text), ("text_pair", pair), ("label", label)):
        if name is not None and name not in names and (labelled or setting != "label"):
            raise DataError(
                f"{where}: has no column {name!r} (data.{setting}); its columns are {listed(names)}. "
                f"{nearest(name, list(names))}"
            )
    if text is None:
        free = [name for name in names if name not in (pair, label)]
        text = _first(free, TEXTS)
        if text is None:
            raise DataError(
                f"{where}: cannot tell which column holds the texts: {listed(names)}. Name it: data.text=COLUMN."
            )
        if pair is None:
            more = {"question": ("sentence", "context"), "query": CANDIDATES}.get(text.casefold(), ())
            pair = _first([name for name in free if name != text], (*PAIRS, *more))
    if not labelled:
        return text, pair, None
    if label is None:
        free = [name for name in names if name not in (text, pair)]
        tags = [name for name in free if name.strip().casefold() in TAGS]
        if len(tags) > 1:
            raise DataError(
                f"{where}: which column holds the tags, {' or '.join(map(repr, tags))}? Name it: data.label={tags[-1]}."
            )
        label = _first(free, (*TAGS, *LABELS))
        if label is None:
            raise DataError(
                f"{where}: cannot tell which column holds the labels: {listed(names)}. "
                f"Name it: data.label=COLUMN.{hint}"
            )
    return text, pair, label


def choose_group(names: Sequence[str], wanted: str | None, others: Sequence[str | None], where: str) -> str | None:
    """Return the column that says to which group a row belongs: the one that is ``wanted``, or recognised by its name.

    ``others`` are columns with another use. None where there is none; raises DataError where the wanted one is missing.
    """
    if wanted is not None and wanted not in names:
        raise DataError(
            f"{where}: has no column {wanted!r} (data.group); its columns are {listed(names)}. "
            f"{nearest(wanted, list(names))}"
        )
    return wanted or _first([name for name in names if name not in others], GROUPS)


def choose_label_columns(
    names: Sequence[str], wanted: Sequence[str], others: Sequence[str | None], where: str
) -> tuple[str, ...]:
    """Return the 0/1 columns that ``data.label_columns`` names, in the order of ``names``.

    In an entry ``*`` stands for any letters. ``others`` are columns with another use. Raises DataError for an entry
    that names none that is left.
    """
    free = [name for name in names if name not in others]
    for entry in wanted:
        if not any(_meant(name, entry) for name in free):
            raise DataError(
                f"{where}: has no column {entry!r} (data.label_columns); beside the texts its columns are "
                f"{listed(free)}. {nearest(entry, free)}"
            )
    return tuple(name for name in free if any(_meant(name, entry) for entry in wanted))


def _meant(name: str, entry: str) -> bool:
    return name == entry or ("*" in entry and fnmatchcase(name, entry))


def _first(names: Sequence[str], known: Sequence[str]) -> str | None:
    by_name = {name.strip().casefold(): name for name in reversed(names)}
    return next((by_name[word] for word in known if word in by_name), None)


def listed(names: Sequence[str]) -> str:
    """Return column names for a message."""
    shown = ", ".join(repr(name) if len(name) <= 40 else repr(name[:39] + "…") for name in names[:10])
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")
