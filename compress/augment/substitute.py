"""Replace words with candidates from a language model, word vectors or a thesaurus (TinyBERT, arXiv:1909.10351)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.augment import masked_lm
from compress.augment.base import Augmentation, Texts, texts_of
from compress.augment.grammar import GRAMMAR
from compress.augment.lexicon import read_synonyms
from compress.augment.vectors import Vectors, read_vectors
from compress.augment.words import cut, is_letters, joined, written_as
from compress.data.dataset import Split
from compress.data.scripts import Segmentation
from compress.errors import Fault
from compress.files import hash_file
from compress.known import NOTHING, Known
from compress.pipeline.state import State
from compress.settings import at_least, between

SOURCES = ("mlm", "vectors", "synonyms")
FILES = ("vectors", "synonyms")
LOOKED_AT = 10  # lines of a vector file that are read before any work


@dataclass(kw_only=True)
class Substitute(Augmentation):
    """Replace words with a language model's, with similar ones, or with synonyms (TinyBERT, arXiv:1909.10351).

    Algorithm 1: candidates for a word are the K most probable words of a masked language model if the model reads
    the word as a single piece, otherwise the K most similar by word vectors; each word is replaced with
    probability p_t by one of its candidates, drawn uniformly. As in the authors' program, candidates come
    from the unchanged row, once for all copies, and only words of letters have any, except for those of English
    grammar ("the", "is", "not"): everything else stays. Beyond the paper: a word without candidates from these
    sources takes the synonyms of a thesaurus, of any part of speech; and a replacement is capitalised like the word
    it replaces.
    """

    rate: float = 0.4  # p_t, probability that a word with candidates is replaced
    candidates: int = 15  # K, most probable or most similar words
    mlm: str | None = None  # folder or hub id of a masked language model, for words that it reads as one piece
    vectors: str | None = None  # text file of word vectors (word2vec, GloVe), for the other words
    synonyms: str | None = None  # .tsv file (word, synonym; or word, part of speech, synonyms), for the rest
    grammar: bool = False  # also replace English words of grammar (the, is, not), which the paper leaves

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """There is a source, the files exist, and something is replaced."""
        yield from super().faults(known)
        yield from between(self, "rate", 0, 1, open_low=True)
        yield from at_least(self, "candidates", 1)
        if not any(getattr(self, name) for name in SOURCES):
            yield Fault("mlm", None, "needs a source of words", "Set mlm, vectors or synonyms.")
        for name in FILES:
            value = getattr(self, name)
            if value and not Path(value).expanduser().is_file():
                yield Fault(name, value, "is not a file", "Name a file.")

    def look(self) -> None:
        """Raise ModelError or DataError if a source cannot be used."""
        if self.mlm:
            masked_lm.load(self.mlm)
        if self.vectors:
            read_vectors(Path(self.vectors).expanduser(), LOOKED_AT)
        if self.synonyms:
            read_synonyms(Path(self.synonyms).expanduser())

    def made_with(self) -> Any:
        """Leave out the sources' paths; their content counts."""
        return {name: value for name, value in super().made_with().items() if name not in SOURCES}

    def sources(self, state: State) -> Any:
        """Return hashes of the sources' contents, by name."""
        hashes: dict[str, str] = {}
        if content := masked_lm.content(self.mlm):
            hashes["mlm"] = content
        return hashes | {
            name: hash_file(Path(path).expanduser()) for name in FILES if (path := getattr(self, name)) is not None
        }

    def maker(self, state: State) -> Substituter:
        """Read the sources and return the object that produces the copies."""
        return Substituter(
            self,
            state.data.train,
            masked_lm.load(self.mlm, state.data.words) if self.mlm else None,
            read_vectors(Path(self.vectors).expanduser()) if self.vectors else None,
            read_synonyms(Path(self.synonyms).expanduser()) if self.synonyms else {},
            state.data.words,
        )


@dataclass(frozen=True)
class Substituter:
    """Produces the copies of `Substitute`."""

    settings: Substitute
    rows: Split
    mlm: masked_lm.MaskedLm | None
    vectors: Vectors | None
    synonyms: dict[str, list[str]]
    words: Segmentation = Segmentation.letters

    def copies(self, row: int, number: int, generator: np.random.Generator, counts: Counter[str]) -> Iterator[Texts]:
        """Yield copies of a row; count words seen, words without candidates, and replacements by source."""
        originals = texts_of(self.rows, row)
        sides = [cut(text, self.words) for text in originals]
        expected = self.mlm.candidates(originals, sides, self.settings.candidates) if self.mlm else {}
        known: dict[tuple[int, int], tuple[str, list[str]]] = {}
        words = 0
        for side, text in enumerate(sides):
            for place, word in enumerate(text.words):
                if is_letters(word) and (self.settings.grammar or word.casefold() not in GRAMMAR):
                    words += 1
                    if options := self._candidates(word, expected.get((side, place), [])):
                        known[side, place] = options
        counts["words"] += number * words
        counts["without_candidates"] += number * (words - len(known))
        for _ in range(number):
            changed = [list(text.words) for text in sides]
            for (side, place), (source, candidates) in known.items():
                if generator.random() < self.settings.rate:
                    word = candidates[int(generator.integers(len(candidates)))]
                    changed[side][place] = written_as(word, like=sides[side].words[place])
                    counts[f"by_{source}"] += 1
            yield tuple(joined(new, text.gaps) for new, text in zip(changed, sides, strict=True))

    def _candidates(self, word: str, expected: list[str]) -> tuple[str, list[str]] | None:
        """Return the first source that has candidates for a word, with the candidates."""
        if expected:
            return "mlm", expected
        if self.vectors is not None and (similar := self.vectors.nearest(word, self.settings.candidates)):
            return "vectors", similar
        synonyms = self.synonyms.get(word.casefold())
        return ("synonyms", synonyms) if synonyms else None
