"""Texts as token numbers: kept flat, padded per batch, grouped by length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.data.dataset import Split
from compress.mapped import Column, mapped
from compress.tasks.base import Array

CHUNK = 1000  # rows tokenized at once


@dataclass(frozen=True)
class Tokens:
    """The token numbers of a split, in files; row r lies at ``offsets[r]:offsets[r+1]`` of each flat column."""

    columns: dict[str, Array]  # "input_ids", "token_type_ids" where the model has them
    offsets: Array  # (rows + 1,), int64
    pad: dict[str, int]
    labels: Array | None
    truncated: int  # rows that were longer than the limit

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> int:
        return row  # torch's DataLoader reads rows by number; `batch` does the work at once

    @cached_property
    def lengths(self) -> Array:
        """Tokens a row, special ones included."""
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
        )

    def batch(self, rows: list[int] | Array) -> dict[str, Tensor]:
        """Return padded inputs (batch, tokens), the mask, the rows' numbers and their labels."""
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
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[np.asarray(rows)])
        return batch

    def batches(self, size: int) -> Iterator[Array]:
        """Yield row numbers, all rows once, longest first so that padding and memory stay small."""
        order = np.argsort(-self.lengths, kind="stable")
        for start in range(0, len(order), size):
            yield order[start : start + size]


def tokenize(split: Split, tokenizer: Any, max_tokens: int) -> Tokens:
    """Return the split's token numbers; a row longer than ``max_tokens`` is cut, the longer text first."""
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    flat, offsets = {name: Column(np.int32) for name in names}, Column(np.int64)
    offsets.append([0])
    end = truncated = 0
    for start in range(0, len(split), CHUNK):
        texts = list(split.texts[start : start + CHUNK])
        pairs = None if split.pairs is None else list(split.pairs[start : start + CHUNK])
        said = tokenizer(texts, pairs, truncation=True, max_length=max_tokens)
        truncated += sum(bool(encoding.overflowing) for encoding in said.encodings)
        lengths = [len(ids) for ids in said["input_ids"]]
        offsets.append(end + np.cumsum(lengths))
        end += sum(lengths)
        for name in names:
            flat[name].append(np.fromiter((i for ids in said[name] for i in ids), dtype=np.int32))
    return Tokens(
        columns={name: column.mapped() for name, column in flat.items()},
        offsets=offsets.mapped(),
        pad={"input_ids": tokenizer.pad_token_id, "token_type_ids": 0},
        labels=split.labels,
        truncated=truncated,
    )
