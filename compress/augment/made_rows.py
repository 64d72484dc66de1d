"""Rows that are made of others as they are needed, each by its number alone, and stored nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from compress.augment.base import Texts, digest_of, texts_of
from compress.augment.masked_lm import MaskedLm, Place
from compress.augment.perturb import SIDES, Rates, perturbed
from compress.augment.words import Words, cut, joined, written_as
from compress.data.dataset import Split
from compress.data.scripts import Segmentation
from compress.models.tokens import tokenize
from compress.tasks.base import Array

COUNTED = 100_000  # texts that word frequencies are taken from, evenly spread
TRIES = 20  # most attempts at a row that has words and is not one of those measured


class Making(Rates, Protocol):
    """How rows are made."""

    @property
    def halves_rate(self) -> float:
        """Probability that a row is recombined with another one."""
        ...


class MadeRows:
    """Rows by number, each made of two that are drawn: recombined, then perturbed.

    With probability ``halves_rate`` the second half of a text, by words, is another text's; of pairs the second text is
    another row's. Then words are masked and replaced, and texts cut to n-grams, as `compress.augment.perturb` says,
    though by words of any part of speech; ``mlm``, where it has any, replaces a word by one of the ``candidates`` that
    are most probable there in the recombined row, before anything of it is masked. What has no words, or equals a row
    of ``measured``, letters' case and white space aside, is made again; after `TRIES` such rows in succession, a row is
    taken unchanged.
    """

    def __init__(
        self, rows: Split, measured: Iterable[Split], making: Making, mask: str, seed: int,
        words: Segmentation = Segmentation.letters, mlm: MaskedLm | None = None, candidates: int = 15,
    ) -> None:  # fmt: skip
        self.rows, self.making, self.mask, self.seed, self.words = rows, making, mask, seed, words
        self.mlm, self.candidates = mlm, candidates
        self.measured = {digest_of(texts_of(split, row)) for split in measured for row in range(len(split))}
        places = np.linspace(0, len(rows) - 1, min(len(rows), COUNTED)).round().astype(int)
        counts = Counter(
            word for place in places for text in texts_of(rows, int(place)) for word in cut(text, words).words
        )
        self.vocabulary, self.sums = list(counts), np.cumsum(list(counts.values()))

    def __getitem__(self, number: int) -> Texts:
        """Return the texts of the row with a number, the same at every call."""
        generator = np.random.default_rng([self.seed, number])
        for _ in range(TRIES):
            made = self._made(generator)
            if all(made) and digest_of(made) not in self.measured:
                return made
        return texts_of(self.rows, number % len(self.rows))

    def _made(self, generator: np.random.Generator) -> Texts:
        texts, others = (texts_of(self.rows, int(generator.integers(len(self.rows)))) for _ in range(2))
        recombined = generator.random() < self.making.halves_rate
        if len(texts) == 2:
            sides = [cut(text, self.words) for text in ((texts[0], others[1]) if recombined else texts)]
            changed = SIDES[int(generator.integers(len(SIDES)))]
        else:
            own, other = cut(texts[0], self.words), cut(others[0], self.words)
            sides, changed = [halves(own, other) if recombined else own], (0,)
        texts = tuple(joined(words.words, words.gaps) for words in sides)
        if self.mlm is not None:
            sides = [cut(text, self.words) for text in texts]

        def perturb(side: int) -> str:
            def draw(place: int) -> str:
                return self._replacement(texts, sides, (side, place), generator)

            return perturbed(sides[side], self.making, self.mask, draw, generator, Counter())

        return tuple(perturb(side) if side in changed else text for side, text in enumerate(texts))

    def _replacement(self, texts: Texts, sides: list[Words], place: Place, generator: np.random.Generator) -> str:
        """Return a word in the place of one: of the language model's candidates, or any of the texts."""
        found = [] if self.mlm is None else self.mlm.candidates(texts, sides, self.candidates, place).get(place, [])
        if not found:
            return self._drawn(generator)
        side, number = place
        return written_as(found[int(generator.integers(len(found)))], like=sides[side].words[number])

    def _drawn(self, generator: np.random.Generator) -> str:
        """Return a word, in proportion to its frequency."""
        return self.vocabulary[int(np.searchsorted(self.sums, generator.integers(self.sums[-1]), side="right"))]


def halves(first: Words, second: Words) -> Words:
    """Return the first half of a text's words, the longer one, and the second half of another's."""
    end, start = (len(first.words) + 1) // 2, (len(second.words) + 1) // 2
    gaps = second.gaps[start:]
    if gaps and end and not gaps[0] and second.words[start][:1].isalnum() and first.words[end - 1][-1:].isalnum():
        gaps = [" ", *gaps[1:]]  # its neighbour was punctuation
    return Words([*first.words[:end], *second.words[start:]], [*first.gaps[:end], *gaps], [])


class MadeTokens:
    """Made rows as a model's tokens, tokenized batch by batch."""

    words: Array | None = None  # any piece of the vocabulary may come

    def __init__(self, rows: MadeRows, count: int, tokenizer: object, max_tokens: int) -> None:
        self.rows, self.count, self.tokenizer, self.max_tokens = rows, count, tokenizer, max_tokens

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> int:
        return row

    @property
    def lengths(self) -> Array:
        """The most tokens that a row may have, for each row; how many it has is not known before it is made."""
        return np.broadcast_to(np.int64(self.max_tokens), self.count)

    def batch(self, rows: list[int] | Array) -> dict[str, Tensor]:
        """Return padded inputs (batch, tokens), the mask, and the rows' numbers."""
        made = [self.rows[int(row)] for row in rows]
        pairs = tuple(texts[1] for texts in made) if len(made[0]) == 2 else None
        tokens = tokenize(Split(tuple(texts[0] for texts in made), pairs), self.tokenizer, self.max_tokens)
        return tokens.batch(list(range(len(made)))) | {"rows": torch.as_tensor(np.asarray(rows))}
