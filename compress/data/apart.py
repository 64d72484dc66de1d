"""Rows of several texts as rows of one, for a task whose model reads each text by itself."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from itertools import chain

import numpy as np

from compress.data.dataset import Split
from compress.data.rows import Rows
from compress.tasks.base import Array


def texts_apart(rows: Rows) -> Split:
    """Return the texts of all rows, those of a row behind each other, without labels."""
    columns = [rows.texts] if rows.pairs is None else [rows.texts, rows.pairs]
    return Split(tuple(chain.from_iterable(zip(*columns, strict=True))))


def without_repeats(split: Split) -> Split:
    """Return the texts of rows that belong together, their first text once."""
    labels = split.known_labels
    seen: set[tuple[float, float]] = set()
    kept = []
    for index, (row, place, _, text) in enumerate(labels):
        if place > 0 or (row, text) not in seen:
            kept.append(index)
        if place == 0:
            seen.add((row, text))
    places = np.array(kept, dtype=np.int64)
    return Split(tuple(split.texts[index] for index in kept), labels=labels[places], grouped=True)


def row_numbers(rows: Rows) -> Array:
    """Return a number for each row (rows,), fp64, that no other row has, nor a row of another split with other texts.

    It depends on the texts alone, and on how often they came before: splits can be joined and cut, and files renamed.
    Rows of a group with the same first text have the number of the first of them.
    """
    numbers = pair_numbers(zip(rows.texts, rows.pairs or [""] * len(rows), strict=True))
    if rows.groups is not None:
        first: dict[tuple[str, str], float] = {}
        for index, key in enumerate(zip(rows.groups, rows.texts, strict=True)):
            numbers[index] = first.setdefault(key, numbers[index])
    return numbers


def pair_numbers(keys: Iterable[tuple[str, str]]) -> Array:
    """Return the numbers of `row_numbers` for pairs of texts (rows,), as if none had a group."""
    seen: Counter[bytes] = Counter()
    numbers = []
    for key in keys:
        content = "\x00".join(key).encode()
        numbers.append(_number(content + b"\x00%d" % seen[content]))
        seen[content] += 1
    return np.array(numbers, dtype=np.float64)


def text_numbers(rows: Rows) -> Array:
    """Return a number for each text (rows, texts), fp64, that equal texts share."""
    columns = [rows.texts] if rows.pairs is None else [rows.texts, rows.pairs]
    numbers = [[_number(text.encode()) for text in column] for column in columns]
    return np.array(numbers, dtype=np.float64).T


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "big")  # 48 bits: exact in fp64
