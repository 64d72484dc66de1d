"""Rows with a question, a context and answers in it: SQuAD's JSON, versions 1.1 and 2.0, and one question a row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.data.formats import BOM, Bad, Numbered, kind_of
from compress.data.unpacking import damage, unpacked
from compress.tasks.span_labels import Gold, written
from compress.wording import counted, shortened

FORM = "spans"
"""The name of the task whose rows these are."""

QUESTION, CONTEXT, ANSWERS = "question", "context", "answers"
UNIT = "question"  # what is counted in SQuAD's JSON, which has no lines to speak of

_TEXT, _START, _IMPOSSIBLE = "text", "answer_start", "is_impossible"
_SQUAD = re.compile(rb'\s*\{\s*"(?:version|data)"\s*:')
_SHAPE = '{"data": [{"paragraphs": [{"context": …, "qas": [{"question": …, "answers": […]}]}]}]}'


@dataclass(frozen=True)
class AskedRow:
    """A question, its context, and the context with its answers as a label."""

    question: str
    context: str
    label: str
    guessed: int = 0  # answers without an offset whose text occurs more than once; the first place was taken


def is_asked(label: object) -> bool:
    """Return whether the label of a pair of texts is a list of answers in the second."""
    if isinstance(label, Mapping):
        return _TEXT in label
    return (
        isinstance(label, list)
        and bool(label)
        and all(isinstance(answer, Mapping) and _TEXT in answer for answer in label)
    )


def asked_row(question: object, context: object, answers: object) -> AskedRow | Bad:
    """Return a row of a question, a context and answers, which must occur in the context where they say."""
    for name, value in ((QUESTION, question), (CONTEXT, context)):
        if value is not None and not isinstance(value, str):
            return Bad(f"the {name} is {kind_of(value)}, not a string. Put texts in quotes.")
        if not isinstance(value, str) or not any(sign.isprintable() and not sign.isspace() for sign in value):
            return Bad(f"the {name} is empty. Fill it, or remove the row.")
    assert isinstance(question, str)
    assert isinstance(context, str)
    given = _listed(answers)
    if isinstance(given, Bad):
        return given
    found: list[tuple[int, int]] = []
    guessed = 0
    for number, (text, start) in enumerate(given, 1):
        which = f"answer {number}" if len(given) > 1 else "the answer"
        if not isinstance(text, str) or not text.strip():
            what = "is empty" if isinstance(text, str) else f"is {kind_of(text)}, not a string"
            return Bad(f"{which} {what}. Correct it; an empty list of answers says that there is none.")
        place = _place(context, text, start)
        if isinstance(place, str):
            return Bad(f"{which} {shortened(text)!r} {place}")
        guessed += start is None and context.count(text) > 1
        lead = len(text) - len(text.lstrip())
        found.append((place + lead, place + len(text.rstrip())))
    return AskedRow(" ".join(question.split()), context, written(Gold(context, tuple(found))), guessed)


def _listed(answers: object) -> list[tuple[object, object]] | Bad:
    """Return texts and offsets of answers, however they are written; an offset is None where none is given."""
    if isinstance(answers, Mapping):  # as `datasets` has them: lists side by side
        texts, starts = answers.get(_TEXT), answers.get(_START)
        if isinstance(texts, str):
            return [(texts, starts)]
        if not isinstance(texts, Sequence):
            return Bad(f"{_TEXT!r} of the answers is {kind_of(texts)}, not a list.")
        if starts is None:
            return [(text, None) for text in texts]
        if not isinstance(starts, Sequence) or len(starts) != len(texts):
            return Bad(
                f"the answers have {counted(len(texts), 'text')} and another number of {_START!r}. Give each one."
            )
        return list(zip(texts, starts, strict=True))
    if isinstance(answers, list):
        return [
            (answer.get(_TEXT), answer.get(_START)) if isinstance(answer, Mapping) else (answer, None)
            for answer in answers
        ]
    return Bad(f"the answers are {kind_of(answers)}, not a list. Give a list; an empty one says that there is none.")


def _place(context: str, text: str, start: object) -> int | str:
    """Return where an answer begins, or what is wrong with it and the remedy, as the end of a sentence."""
    first = context.find(text)
    if start is None:
        return first if first >= 0 else "does not occur in its context. Correct it, or remove the row."
    if isinstance(start, bool) or not isinstance(start, int):
        return (
            f"has the {_START} {shortened(str(start))}, which is not a whole number. Give its first character, from 0."
        )
    if start >= 0 and context.startswith(text, start):
        return start
    there = context[max(start, 0) : max(start, 0) + len(text)]
    stands = f", where {shortened(there)!r} stands" if 0 <= start < len(context) else ", where the context has ended"
    also = f"it occurs at {first}" if first >= 0 else "it occurs nowhere in it"
    return (
        f"is not at character {start} of its context{stands}; {also}. Correct {_START}: characters are counted from 0, "
        "as Python does, not bytes."
    )


def looks_like_squad(path: Path) -> bool:
    """Return whether a file begins as SQuAD's JSON does."""
    with unpacked(path) as file:
        try:
            return _SQUAD.match(file.read(200).removeprefix(BOM)) is not None
        except OSError as error:
            return not damage(error)


def read_squad(path: Path) -> Numbered:
    """Yield a record for each question of SQuAD's JSON, with its number: question, context, answers."""
    try:
        with unpacked(path) as file:
            whole = json.loads(file.read().removeprefix(BOM).decode("utf-8"))
    except OSError as error:
        yield 1, Bad(damage(error))
        return
    except UnicodeDecodeError as error:
        yield 1, Bad(f"byte {error.start + 1} is not UTF-8. Save the file as UTF-8.")
        return
    except (ValueError, RecursionError) as error:
        what = f"{error.msg}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        yield 1, Bad(f"not valid JSON ({what}). Correct the file, or write it again.")
        return
    number = 0
    try:
        for question in _questions(whole):
            number += 1
            yield number, question
    except (TypeError, KeyError, AttributeError):
        yield number + 1, Bad(f"not as SQuAD's JSON is built. It must be {_SHAPE}; one question a line is .jsonl.")


def _questions(whole: Any) -> Iterator[dict[str, object] | Bad]:
    for article in whole["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers = asked.get(ANSWERS, [])
                if asked.get(_IMPOSSIBLE) and answers:
                    yield Bad(
                        f"has {counted(len(answers), 'answer')} and {_IMPOSSIBLE} = true. Keep only the right one; "
                        "plausible_answers are not read."
                    )
                    continue
                if _IMPOSSIBLE in asked and not asked[_IMPOSSIBLE] and not answers:
                    yield Bad(f"has no answer, and {_IMPOSSIBLE} = false. Add the answer, or correct {_IMPOSSIBLE}.")
                    continue
                yield {QUESTION: asked[QUESTION], CONTEXT: paragraph[CONTEXT], ANSWERS: answers}
