"""Texts as token numbers: kept flat, padded per batch, grouped by length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.data.dataset import Split
from compress.mapped import MappedColumn, mapped
from compress.tasks.base import Array
from compress.tasks.functions import UNLABELLED

CHUNK = 1000  # rows tokenized at once


@dataclass(frozen=True)
class Tokens:
    """The token numbers of a split, in files; row r lies at ``offsets[r]:offsets[r+1]`` of each flat column."""

    columns: dict[str, Array]  # "input_ids", "token_type_ids" where the model has them
    offsets: Array  # (rows + 1,), int64
    pad: dict[str, int]
    labels: Array | None  # (rows, …), as the split has them
    truncated: int  # rows that were longer than the limit
    answering: Array | None = None  # (rows, answers): the tokens that answer, -1 for none; None: rows do
    groups: Array | None = None  # (rows,): a number that rows which belong together share; None: each stands alone

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> int:
        return row  # torch's DataLoader reads rows by number; `batch` does the work at once

    @cached_property
    def lengths(self) -> Array:
        """Tokens per row, special ones included."""
        return mapped(np.diff(self.offsets))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the token numbers and their cut into rows."""
        digest = hashlib.sha256(self.offsets.data)
        for name, column in sorted(self.columns.items()):
            digest.update(name.encode())
            digest.update(column.data)
        return digest.hexdigest()

    def take(self, rows: Array) -> Tokens:
        """Return the rows at these positions, in this order."""
        places = np.concatenate([np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows])
        return replace(
            self,
            columns={name: column[places] for name, column in self.columns.items()},
            offsets=np.concatenate([[0], np.cumsum(self.lengths[rows])]),
            labels=None if self.labels is None else self.labels[rows],
            answering=None if self.answering is None else self.answering[rows],
            groups=None if self.groups is None else np.unique(self.groups[rows], return_inverse=True)[1],
        )

    def batch(self, rows: list[int] | Array) -> dict[str, Tensor]:
        """Return padded inputs (batch, tokens), the mask, rows' numbers and labels, (batch, …) or by token.

        Where tokens answer, ``answering`` (batch, tokens) is 1 on those that are read.
        """
        width = int(self.lengths[rows].max())
        padded = {name: np.full((len(rows), width), self.pad[name], dtype=np.int64) for name in self.columns}
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            start, stop = self.offsets[row], self.offsets[row + 1]
            for name, column in self.columns.items():
                padded[name][place, : stop - start] = column[start:stop]
            mask[place, : stop - start] = 1
        batch = {name: torch.from_numpy(column) for name, column in padded.items()}
        batch |= {"attention_mask": torch.from_numpy(mask), "rows": torch.as_tensor(np.asarray(rows))}
        if self.answering is not None:
            batch["answering"] = torch.from_numpy(self._read(self.answering[rows], width))
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self._labels(self.labels, np.asarray(rows), width))
        return batch

    def _labels(self, labels: Array, rows: Array, width: int) -> Array:
        """Return the labels of rows; where tokens answer (batch, tokens), `UNLABELLED` for all others."""
        if self.answering is None:
            return labels[rows]
        by_token = np.full((len(rows), width), UNLABELLED, dtype=np.int64)
        for place, row in enumerate(rows):
            read = self.answering[row] >= 0
            by_token[place, self.answering[row][read]] = labels[row][read]
        return by_token

    @staticmethod
    def _read(places: Array, width: int) -> Array:
        """Return which tokens (batch, tokens) are at these places (batch, answers), -1 for none."""
        read = np.zeros((len(places), width), dtype=np.int64)
        rows, answers = np.nonzero(places >= 0)
        read[rows, places[rows, answers]] = 1
        return read

    def gathered(self, parts: Iterable[tuple[Array | list[int], Array]]) -> Array:
        """Return the answers (rows, outputs), or (rows, answers, outputs) where tokens answer, 0 where one has none.

        ``parts`` are batches: the numbers of their rows, and logits (batch, outputs) or (batch, tokens, outputs).
        """
        whole: Array | None = None
        for rows, logits in parts:
            answers = logits
            if self.answering is not None:
                places = self.answering[rows]
                answers = np.take_along_axis(logits, np.maximum(places, 0)[:, :, None], axis=1)
                answers = np.where(places[:, :, None] >= 0, answers, np.zeros_like(answers))
            if whole is None:
                whole = np.zeros((len(self), *answers.shape[1:]), dtype=answers.dtype)
            whole[rows] = answers
        if whole is None:
            raise ValueError("there are no rows")
        return whole

    def batches(self, size: int) -> Iterator[Array]:
        """Yield row numbers, all rows once, longest first so that padding and memory stay small.

        Rows that belong together are in one batch, which may then hold more than ``size``.
        """
        if self.groups is not None:
            whole = self.whole
            per_group = max(1, round(size * len(whole) / max(len(self), 1)))
            order = np.argsort(-whole.lengths, kind="stable")
            for start in range(0, len(order), per_group):
                yield whole.rows(order[start : start + per_group])
            return
        order = np.argsort(-self.lengths, kind="stable")
        for start in range(0, len(order), size):
            yield order[start : start + size]

    @cached_property
    def whole(self) -> Groups:
        """The rows as groups, each of which a batch has as a whole."""
        return Groups(self, np.arange(len(self)) if self.groups is None else self.groups)


class Groups:
    """Tokens whose rows belong together, counted and batched by group; ``numbers`` (rows,) begin at 0."""

    def __init__(self, tokens: Tokens, numbers: Array) -> None:
        self.tokens = tokens
        self.members = np.argsort(numbers, kind="stable")
        self.starts = np.searchsorted(numbers[self.members], np.arange(numbers.max(initial=-1) + 2))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, group: int) -> int:
        return group

    @cached_property
    def lengths(self) -> Array:
        """Tokens of the longest row of each group."""
        longest: Array = np.maximum.reduceat(self.tokens.lengths[self.members], self.starts[:-1])
        return longest

    def rows(self, groups: list[int] | Array) -> Array:
        """Return the numbers of all rows of these groups."""
        return np.concatenate([self.members[self.starts[group] : self.starts[group + 1]] for group in groups])

    def batch(self, groups: list[int]) -> dict[str, Tensor]:
        """Return the rows of these groups, as `Tokens.batch` does."""
        return self.tokens.batch(self.rows(groups))


def tokenize(split: Split, tokenizer: Any, max_tokens: int) -> Tokens:
    """Return the split's token numbers; a row longer than ``max_tokens`` is cut, the longer text first."""
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    flat, offsets = {name: MappedColumn(np.int32) for name in names}, MappedColumn(np.int64)
    offsets.append([0])
    end = truncated = 0
    answering: list[Sequence[int]] = []
    for start in range(0, len(split), CHUNK):
        texts = list(split.texts[start : start + CHUNK])
        pairs = None if split.pairs is None else list(split.pairs[start : start + CHUNK])
        encoded = tokenizer(texts, pairs, truncation=True, max_length=max_tokens)
        truncated += sum(bool(encoding.overflowing) for encoding in encoded.encodings)
        if split.by_token is not None:
            seconds: Sequence[str | None] = [None] * len(texts) if pairs is None else pairs
            encodings = zip(texts, seconds, encoded.encodings, strict=True)
            answering += [split.by_token.answering(*row) for row in encodings]
        lengths = [len(ids) for ids in encoded["input_ids"]]
        offsets.append(end + np.cumsum(lengths))
        end += sum(lengths)
        for name in names:
            flat[name].append(np.fromiter((i for ids in encoded[name] for i in ids), dtype=np.int32))
    return Tokens(
        columns={name: column.mapped() for name, column in flat.items()},
        offsets=offsets.mapped(),
        pad={"input_ids": tokenizer.pad_token_id, "token_type_ids": 0},
        labels=split.labels,
        truncated=truncated,
        answering=None if split.by_token is None else _filled(answering, split.labels),
        groups=split.groups,
    )


def _filled(places: Sequence[Sequence[int]], labels: Array | None) -> Array:
    """Return the places of each row (rows, answers), -1 behind the last: as many as there are labels, or at most."""
    width = max(map(len, places), default=0) if labels is None else labels.shape[1]
    filled = np.full((len(places), width), -1, dtype=np.int64)
    for row, own in enumerate(places):
        filled[row, : len(own)] = own[:width]
    return filled
