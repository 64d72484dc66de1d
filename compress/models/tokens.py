"""Texts as token numbers: kept flat, padded per batch, grouped by length.

What is numbered here are windows where a task reads rows in `compress.models.windows`, else rows.
"""

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
from compress.mapped import PART, MappedColumn, mapped
from compress.models.quiet import quiet
from compress.models.windows import Windows, stored, windows_of
from compress.tasks.base import Array, Task
from compress.tasks.functions import UNLABELLED

CHUNK = 1000  # rows tokenized at once


@dataclass(frozen=True)
class Tokens:
    """The token numbers of a split, in files; row r lies at ``offsets[r]:offsets[r+1]`` of each flat column.

    Rows are windows where there are ``windows``; answers, in `gathered`, are of the split's rows all the same.
    """

    columns: dict[str, Array]  # "input_ids", "token_type_ids" where the model has them
    offsets: Array  # (rows + 1,), int64
    pad: dict[str, int]
    labels: Array | None  # (rows, …), as the split has them
    truncated: int  # rows that were longer than the limit
    answering: Array | None = None  # (rows, answers): the tokens that answer, -1 for none; None: rows do
    windows: Windows | None = None  # of a task that has some
    groups: Array | None = None  # (rows,): a number that rows which belong together share; None: each stands alone

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> int:
        return row  # torch's DataLoader reads rows by number; `batch` does the work at once

    @property
    def rows(self) -> int:
        """Number of rows of the split."""
        return len(self) if self.windows is None else self.windows.rows

    def classes(self, task: Task) -> Array | None:
        """Return the class of each row as a number (rows,); None where rows have no class of their own."""
        parted = (self.answering, self.windows, self.groups)
        if self.labels is None or any(part is not None for part in parted):
            return None
        return task.classes_of(self.labels)

    def of_row(self, row: int) -> list[int]:
        """Return what is read of a row of the split: its windows, or itself."""
        return [row] if self.windows is None else self.windows.of_row(row)

    @cached_property
    def lengths(self) -> Array:
        """Tokens per row, special ones included."""
        return mapped(np.diff(self.offsets))

    @cached_property
    def words(self) -> Array:
        """The pieces of the vocabulary that any row has, and that of padding; ascending, each once."""
        ids = self.columns["input_ids"]
        present = np.zeros(int(max(ids.max(initial=0), self.pad["input_ids"])) + 1, dtype=bool)
        present[self.pad["input_ids"]] = True
        for start in range(0, len(ids), PART):
            present[ids[start : start + PART]] = True
        return np.flatnonzero(present)

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
            labels=None if self.labels is None else self.labels[self._rows_of(rows)],
            answering=None if self.answering is None else self.answering[rows],
            windows=None if self.windows is None else self.windows.take(rows, places),
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
        if self.windows is not None:
            batch["answering"] = torch.from_numpy(self.windows.answering(rows, width))
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self._labels(self.labels, np.asarray(rows), width))
        return batch

    def _labels(self, labels: Array, rows: Array, width: int) -> Array:
        """Return the labels of rows; where tokens answer (batch, tokens), `UNLABELLED` for all others."""
        if self.windows is not None:
            return self.windows.labels(labels, rows, width, UNLABELLED)
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

        ``parts`` are batches: the numbers of their rows, and logits (batch, outputs) or (batch, tokens, outputs). Where
        rows are windows, the answers are `Windows.gathered`.
        """
        if self.windows is not None:
            return self.windows.gathered(parts)
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

    def _rows_of(self, rows: Array) -> Array:
        """Return the rows of the split to which those given belong, in order."""
        return rows if self.windows is None else np.unique(self.windows.origin[rows])

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

    @property
    def words(self) -> Array:
        """The pieces of the vocabulary that any row has."""
        return self.tokens.words

    def rows(self, groups: list[int] | Array) -> Array:
        """Return the numbers of all rows of these groups."""
        return np.concatenate([self.members[self.starts[group] : self.starts[group + 1]] for group in groups])

    def batch(self, groups: list[int]) -> dict[str, Tensor]:
        """Return the rows of these groups, as `Tokens.batch` does."""
        return self.tokens.batch(self.rows(groups))


def tokenize(split: Split, tokenizer: Any, max_tokens: int) -> Tokens:
    """Return the split's token numbers; a row longer than ``max_tokens`` is cut, the longer text first.

    A task with windows has it read in several of them instead.
    """
    if split.by_token is not None and split.by_token.windows:
        return _in_windows(split, split.by_token, tokenizer, max_tokens)
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


def _in_windows(split: Split, task: type[Task], tokenizer: Any, max_tokens: int) -> Tokens:
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    flat, extents, offsets = (
        {name: MappedColumn(np.int32) for name in names},
        MappedColumn(np.int32),
        MappedColumn(np.int64),
    )
    offsets.append([0])
    origin: list[int] = []
    end = truncated = 0
    pairs = split.pairs or [""] * len(split)
    for start in range(0, len(split), CHUNK):
        texts, seconds = (list(side[start : start + CHUNK]) for side in (split.texts, pairs))
        with quiet():  # longer rows than the model takes are what is divided
            encoded = tokenizer(texts, seconds, truncation=False, padding=False)
        for row, (encoding, second) in enumerate(zip(encoded.encodings, seconds, strict=True)):
            windows, cut = windows_of(encoding, second, max_tokens, split.overlap)
            truncated += cut
            for window in windows:
                for name in names:
                    flat[name].append(np.asarray(encoded[name][row], dtype=np.int32)[window.places])
                extents.append(window.extents.ravel())
                end += len(window.places)
                offsets.append([end])
                origin.append(start + row)
    begins = offsets.mapped()
    return Tokens(
        columns={name: column.mapped() for name, column in flat.items()},
        offsets=begins,
        pad={"input_ids": tokenizer.pad_token_id, "token_type_ids": 0},
        labels=split.labels,
        truncated=truncated,
        windows=stored(task, origin, begins, extents.mapped()),
    )


def _filled(places: Sequence[Sequence[int]], labels: Array | None) -> Array:
    """Return the places of each row (rows, answers), -1 behind the last: as many as there are labels, or at most."""
    width = max(map(len, places), default=0) if labels is None else labels.shape[1]
    filled = np.full((len(places), width), -1, dtype=np.int64)
    for row, own in enumerate(places):
        filled[row, : len(own)] = own[:width]
    return filled
