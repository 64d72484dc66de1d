"""Masked language modelling: which tokens are hidden, the same ones whenever a step is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.models.shared_words import WordNumbers
from compress.tasks.base import Array

HIDDEN = -100  # the label of a token that is not to be predicted
MASKED, RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stays as it is


def generator_of(seed: int, row: int, progress: float, purpose: int = 0) -> np.random.Generator:
    """Return random numbers for one row at one step, which ``progress``, 0 to 1, tells from every other step."""
    return np.random.default_rng([seed, row, int(progress * 2**53), purpose])


def masked(
    ids: Array,
    low: Array,
    high: Array,
    mask: int,
    chances: Array,
    generator: np.random.Generator,
    first: Array | None = None,
) -> tuple[Array, Array]:
    """Return a row's tokens with some hidden, and its labels: what was hidden, `HIDDEN` elsewhere; all (tokens,).

    Each token is chosen with its own probability in ``chances``; of those chosen 80 % become ``mask``, 10 % a
    random piece from ``low`` to below ``high``, 10 % stay (Devlin et al., arXiv:1810.04805). With ``first`` (tokens,),
    the place of the first token of each one's word, a word's tokens are chosen together, by one draw.
    """
    chance, fate = generator.random((2, len(ids)))
    if first is not None:
        chance = chance[first]
    other = generator.integers(low, high)
    chosen = chance < chances
    seen = np.where(chosen & (fate < MASKED), mask, ids)
    seen = np.where(chosen & (fate >= MASKED) & (fate < MASKED + RANDOM), other, seen)
    return seen, np.where(chosen, ids, HIDDEN)


@dataclass(frozen=True)
class Masking:
    """How the rows of a batch are masked. Special tokens never are; every epoch hides others."""

    mask: int  # number of the mask token
    chances: Array  # (pieces,), the probability that a token of a piece is chosen; a random piece is one of them
    seed: int
    words: WordNumbers | None = None  # the place of the first token of each token's word; None: each by itself

    def __call__(self, batch: Mapping[str, Tensor], progress: float) -> tuple[Tensor, Tensor]:
        """Return input_ids and labels (batch, tokens); padding stays what it is."""
        ids = batch["input_ids"].cpu().numpy().copy()
        lengths, rows = batch["attention_mask"].sum(1).tolist(), batch["rows"].tolist()
        labels = np.full_like(ids, HIDDEN)
        words = None if self.words is None else self.words.batch(batch["rows"].cpu().numpy()).numpy()
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            own = ids[place, :length]
            ids[place, :length], labels[place, :length] = masked(
                own, np.zeros_like(own), np.full_like(own, len(self.chances)), self.mask, self.chances[own],
                generator_of(self.seed, row, progress), None if words is None else words[place, :length],
            )  # fmt: skip
        device = batch["input_ids"].device
        return torch.from_numpy(ids).to(device), torch.from_numpy(labels).to(device)


def masking_of(tokenizer: Any, share: float, seed: int, counts: Array | None = None, smoothing: float = 0.0) -> Masking:
    """Return the masking of a tokenizer's rows, in which special pieces are never chosen.

    All others are chosen with probability ``share``; with ``counts`` (pieces,) of a corpus, rare pieces more often
    than frequent ones: with probability proportional to count^-smoothing and at most 1, so that ``share`` of the
    corpus's tokens are chosen on average.
    """
    ordinary = np.ones(len(tokenizer))
    ordinary[tokenizer.all_special_ids] = 0
    chances = share * ordinary
    if counts is not None and smoothing > 0:
        weights = ordinary * np.maximum(counts, 1.0) ** -smoothing
        wanted = share * float((counts * ordinary).sum())
        certain = np.zeros(len(weights), dtype=bool)  # pieces whose chance would be above 1
        while wanted > 0:
            free = float((counts * weights)[~certain].sum())
            chances = np.where(certain, 1.0, weights * ((wanted - float(counts[certain].sum())) / free))
            if (chances <= 1).all():
                break
            certain = chances >= 1
    return Masking(tokenizer.mask_token_id, chances, seed)
