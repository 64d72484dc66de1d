"""How long rows are in tokens, before any is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from compress.data.dataset import Dataset, Split
from compress.models.quiet import quiet
from compress.models.tokens import CHUNK, tokenize
from compress.tasks.base import Array
from compress.tasks.functions import UNLABELLED

MOST = 10**6  # tokens of a row that is not cut
LOOKED_AT = 20_000  # rows of a split; of more, some that are spread evenly


def with_cuts(data: Dataset, tokenizer: Any, max_tokens: int) -> Dataset:
    """Return the data set whose summary says what ``max_tokens`` cuts from the rows of each split."""
    if data.summary is None or data.task.windows:  # windows lose nothing
        return data
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    lengths = {name: row_lengths(split, tokenizer) for name, split in splits.items()}
    words = {name: lost_words(split, tokenizer, max_tokens) for name, split in splits.items() if split.by_token}
    return replace(data, summary=data.summary.with_cuts(lengths, max_tokens, words))


def lost_words(split: Split, tokenizer: Any, max_tokens: int) -> tuple[int, int]:
    """Return how many answers are cut off, and how many have no token even in whole rows."""
    with quiet():
        whole, cut = (tokenize(split, tokenizer, most).answering for most in (MOST, max_tokens))
    if whole is None or cut is None or split.labels is None:
        return 0, 0
    known = split.labels != UNLABELLED
    return int(((whole >= 0) & (cut < 0) & known).sum()), int(((whole < 0) & known).sum())


def row_lengths(split: Split, tokenizer: Any) -> Array:
    """Return the tokens of each row, special ones included, in order; of a long split, of some rows."""
    rows = np.unique(np.linspace(0, len(split) - 1, min(LOOKED_AT, len(split))).round().astype(int))
    found: list[int] = []
    for start in range(0, len(rows), CHUNK):
        part = [int(row) for row in rows[start : start + CHUNK]]
        texts = [split.texts[row] for row in part]
        pairs = None if split.pairs is None else [split.pairs[row] for row in part]
        with quiet():  # longer rows than the model takes are what is looked for
            found += map(len, tokenizer(texts, pairs, truncation=False, padding=False)["input_ids"])
    return np.asarray(found, dtype=np.int64)
