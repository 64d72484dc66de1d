"""What a field of a file of answers says: numbers of classes, words, or a language model's likeliest words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from compress.settings import nearest
from compress.tasks.base import SUMS
from compress.wording import shortened

Vectors = list[list[float]]
"""The answers to one row, a number for each output; none where it has no answer."""


class AnswerForm(Enum):
    """auto: as names and numbers show; probabilities; logits; logprobs: of the likeliest words; words: classes."""

    auto = "auto"
    probabilities = "probabilities"
    logits = "logits"
    logprobs = "logprobs"
    words = "words"


class Rest(Enum):
    """drop: the other words' probability is left out, and the classes' sums to 1; spread: they share it equally."""

    drop = "drop"
    spread = "spread"


class Unreadable(Exception):
    """A field is not an answer; the message says why and what to do, as sentences without a place."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """How fields are read."""

    classes: tuple[str, ...]  # the file's names of the outputs, in their order; none where any number of them will do
    words: tuple[tuple[str, int], ...]  # words, folded, and the output that each stands for
    shown: tuple[str, ...]  # the first word of each output, as the settings write it
    rest: Rest

    def vectors(self, field: object, form: AnswerForm) -> Vectors:
        """Return the answers in a field; raises `Unreadable`."""
        field = _parsed(field)
        if field in (None, "", []):
            return []
        listed = field if isinstance(field, list) else [field]
        if form is AnswerForm.words:
            return [self._vote(word) for word in listed]
        if form is AnswerForm.logprobs:
            single = isinstance(field, list) and _is_entry(field[0])
            return [shares for entries in ([field] if single else listed) if (shares := self._of_words(entries))]
        single = isinstance(field, list) and not isinstance(field[0], list | Mapping)
        return [self._numbers(answer) for answer in ([field] if single else listed)]

    def of_columns(self, fields: Sequence[object]) -> Vectors:
        """Return the answer in fields that hold a number each, in the order of the outputs; raises `Unreadable`."""
        empty = [field is None or field == "" for field in fields]
        if all(empty):
            return []
        if any(empty):
            place = empty.index(True)
            lacks = (
                f"for the class {self.classes[place]!r}" if self.classes else f"in the field {place + 1} of its vector"
            )
            raise Unreadable(f"has no number {lacks}. Fill it, or empty the others too.")
        return [[number(field) for field in fields]]

    def _numbers(self, answer: object) -> list[float]:
        if not self.classes:
            return vector(answer)
        if isinstance(answer, Mapping):
            for name in answer:
                if str(name) not in self.classes:
                    raise Unreadable(self._unknown(str(name)))
            lacking = [name for name in self.classes if name not in answer]
            if lacking:
                raise Unreadable(f"has no number for the class {lacking[0]!r}. Give one for each class.")
            return [number(answer[name]) for name in self.classes]
        values = answer if isinstance(answer, list) else [answer]
        if len(values) != len(self.classes):
            shown = ", ".join(map(shortened, self.classes[:10])) + (", …" if len(self.classes) > 10 else "")
            raise Unreadable(
                f"has {len(values)} numbers for {len(self.classes)} classes ({shown}). Give one for each class, in "
                "this order, or name their order: teacher.classes."
            )
        return [number(value) for value in values]

    def _vote(self, word: object) -> list[float]:
        output = dict(self.words).get(folded_word(str(word)))
        if output is None:
            raise Unreadable(self._unknown(str(word)))
        return [float(place == output) for place in range(len(self.classes))]

    def _unknown(self, name: str) -> str:
        return (
            f"names the class {shortened(name)!r}, which the data does not have. "
            f"{nearest(name, self.classes[:50])} If it stands for one of them, say so in data.labels, or, of words, in "
            "teacher.words; leave the field empty where there is no answer."
        )

    def _of_words(self, entries: object) -> list[float]:
        """Return probabilities of the outputs from log-probabilities of words; none where no word stands for one."""
        output_of = dict(self.words)
        shares, total = [0.0] * len(self.classes), 0.0
        for word, logprob in _entries(entries):
            value = -math.inf if logprob is None else float(logprob)
            if math.isnan(value) or value > SUMS:
                raise Unreadable(
                    f"the log-probability of {shortened(word)!r} is {value:g}, above 0 or not a number. "
                    "Give natural logarithms of probabilities; of logits: teacher.form=logits."
                )
            share = math.exp(min(value, 0.0))
            total += share
            if (output := output_of.get(folded_word(word))) is not None:
                shares[output] += share
        if total > 1 + SUMS:
            raise Unreadable(f"the probabilities of its words sum to {total:.3f}, more than 1. Give each word once.")
        known = sum(shares)
        if not known:
            return []
        if self.rest is Rest.drop:
            return [share / known for share in shares]
        left = max(0.0, 1 - known) / len(shares)
        whole = known + left * len(shares)
        return [(share + left) / whole for share in shares]


def folded_word(word: str) -> str:
    """Return a word without what tokenizers and models put around it, case folded."""
    return word.strip(" \t\r\n▁Ġ\"'.,:;!*`").casefold()


def number(value: object) -> float:
    """Return a finite number; raises `Unreadable`."""
    if not isinstance(value, bool):
        try:
            found = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            found = None
        if found is not None and math.isfinite(found):
            return found
        if found is not None:
            raise Unreadable(f"holds {found}, which is not a finite number. Ask that row again, or empty its fields.")
    raise Unreadable(f"holds {shortened(str(value))!r} where a number is expected. Correct it.")


def vector(values: object) -> list[float]:
    """Return a list of finite numbers, of any length but 0; raises `Unreadable`."""
    if not isinstance(values, list) or not values:
        raise Unreadable(f"holds {shortened(str(values))!r} where a list of numbers is expected. Correct it.")
    return [number(value) for value in values]


def _parsed(field: object) -> object:
    """Return a field; of text that holds a list or an object as JSON, that."""
    if isinstance(field, str) and field.strip()[:1] in ("[", "{"):
        try:
            parsed: object = json.loads(field)
        except (ValueError, RecursionError):
            raise Unreadable(f"holds {shortened(field)!r}, which is not valid JSON. Correct it.") from None
        return parsed
    return field.strip() if isinstance(field, str) else field


def _is_entry(value: object) -> bool:
    """Return whether this is one of a language model's likeliest words: {"token": …, "logprob": …}."""
    return isinstance(value, Mapping) and "token" in value and "logprob" in value


def _entries(entries: Any) -> list[tuple[str, Any]]:
    if isinstance(entries, Mapping):
        if _is_entry(entries):
            return [(str(entries["token"]), entries["logprob"])]
        return [(str(word), logprob) for word, logprob in entries.items() if not isinstance(logprob, str)]
    if isinstance(entries, list) and all(map(_is_entry, entries)):
        return [(str(entry["token"]), entry["logprob"]) for entry in entries]
    raise Unreadable(
        'holds no log-probabilities of words. Write {"word": logprob, …}, or a list of '
        '{"token": …, "logprob": …} as an OpenAI-compatible server returns it.'
    )
