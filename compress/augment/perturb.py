"""Masking, replacement by words of the same part of speech, and n-grams (Tang et al., arXiv:1903.12136)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from compress.augment import tagger
from compress.augment.base import Augmentation, Texts, texts_of
from compress.augment.words import Words, cut, joined, lack_spaces
from compress.data.dataset import Split
from compress.data.scripts import Segmentation
from compress.errors import Fault, ModelError
from compress.known import NOTHING, Known
from compress.models.loading import load_tokenizer
from compress.pipeline.state import State
from compress.settings import at_least, between
from compress.tasks.base import Array

SIDES = ((0,), (1,), (0, 1))  # for pairs: copies change the first text, the second, both, and so on


@dataclass(kw_only=True)
class Perturb(Augmentation):
    """Mask words, replace them with others of the same part of speech, cut out n-grams (Tang et al., arXiv:1903.12136).

    Section 3.3: for every word X ~ U[0, 1] is drawn. Below ``mask_rate`` the word becomes the mask token; in the
    next ``replace_rate`` it becomes a word of the same tag, drawn from the training texts' unigram distribution
    given that tag. Then, with probability ``ngram_rate``, the text is replaced by one of its n-grams, n drawn
    from 1 … ``longest_ngram``. For pairs, the first text is changed, then the second, then both.
    """

    mask_rate: float = 0.1  # p_mask, probability that a word is masked
    replace_rate: float = 0.1  # p_pos, probability that a word becomes another one of its part of speech
    ngram_rate: float = 0.25  # p_ng, probability that a text becomes one of its n-grams
    longest_ngram: int = 5  # words in the longest n-gram
    tagger: str = "english"  # parts of speech: english (packaged), an installed spaCy pipeline, or a folder

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Rates are probabilities, something changes, words have parts of speech, and there is a mask token."""
        yield from super().faults(known)
        rates = ("mask_rate", "replace_rate", "ngram_rate")
        for name in rates:
            yield from between(self, name, 0, 1)
        yield from at_least(self, "longest_ngram", 1)
        if self.mask_rate + self.replace_rate > 1:
            yield Fault("replace_rate", self.replace_rate, f"leaves no room beside mask_rate = {self.mask_rate}")
        if not any(getattr(self, name) for name in rates):
            yield Fault(
                "mask_rate", 0, "must be above 0, or another rate", "Without any change, copies equal their originals."
            )
        if known.data is not None and self.replace_rate and lack_spaces(known.data):
            if known.data.words is Segmentation.letters:
                rule = (
                    "draws words of the same part of speech, and letters of scripts without spaces between words have "
                    "none"
                )
                yield Fault("replace_rate", self.replace_rate, rule, "Set it to 0.")
            elif self.tagger in tagger.PACKAGED:
                rule = "knows no parts of speech of a script without spaces between words"
                remedy = "Name a spaCy pipeline for the texts' language, or set replace_rate to 0."
                yield Fault("tagger", self.tagger, rule, remedy)
        if known.only_answers and self.mask_rate:
            rule = "needs the mask token of the teacher's tokenizer, and the teacher only answers"
            yield Fault("mask_rate", self.mask_rate, rule, "Set it to 0.")

    def look(self) -> None:
        """Raise MissingPackageError or ModelError if a tagger is needed but not available."""
        if self.replace_rate:
            tagger.find(self.tagger)

    def made_with(self) -> Any:
        """Leave out the tagger's path; its content counts."""
        return {name: value for name, value in super().made_with().items() if name != "tagger"}

    def sources(self, state: State) -> Any:
        """Return the mask token, and the tagger's content if one is used."""
        return [self._mask(state), tagger.fingerprint(self.tagger) if self.replace_rate else None]

    def maker(self, state: State) -> Perturber:
        """Tag the training texts and return the object that produces the copies."""
        rows, words = state.data.train, state.data.words
        lexicon = None
        if self.replace_rate:
            lexicon = Unigrams(rows, *tagger.tags_of(state.workshop, self.tagger, rows, words), words)
        return Perturber(self, rows, self._mask(state), lexicon, words)

    def _mask(self, state: State) -> str:
        """Return the teacher's mask token, or its token for unknown words if it has none."""
        if not self.mask_rate:
            return ""
        return mask_token(load_tokenizer(state.given_teacher.folder))


def mask_token(tokenizer: Any) -> str:
    """Return a tokenizer's mask token, or its token for unknown words; raises ModelError where it has neither."""
    token = tokenizer.mask_token or tokenizer.unk_token
    if token is None:
        raise ModelError("the teacher's tokenizer has no mask token. Set mask_rate to 0.")
    return str(token)


class Unigrams:
    """How often each word of a corpus has each tag, and the tag of each word in each text."""

    def __init__(
        self, rows: Split, names: list[str], numbers: Array, words: Segmentation = Segmentation.letters
    ) -> None:
        texts = [*rows.texts, *(rows.pairs or ())]
        self.names, self.numbers = names, numbers
        self.ends = np.cumsum([len(cut(text, words).words) for text in texts])
        counts: list[Counter[str]] = [Counter() for _ in names]
        place = iter(numbers)
        for text in texts:
            for word in cut(text, words).words:
                counts[next(place)][word] += 1
        self.words = [list(counter) for counter in counts]
        self.sums = [np.cumsum(list(counter.values())) for counter in counts]

    def tags(self, text: int) -> Array:
        """Return the tag numbers of a text's words; second texts are numbered after the first."""
        return self.numbers[self.ends[text - 1] if text else 0 : self.ends[text]]

    def draw(self, tag: int, generator: np.random.Generator) -> str:
        """Draw a word with this tag, in proportion to its frequency with this tag in the corpus."""
        sums = self.sums[tag]
        return self.words[tag][int(np.searchsorted(sums, generator.integers(sums[-1]), side="right"))]


@dataclass(frozen=True)
class Perturber:
    """Produces the copies of `Perturb`."""

    settings: Perturb
    rows: Split
    mask: str
    lexicon: Unigrams | None
    words: Segmentation = Segmentation.letters

    def copies(self, row: int, number: int, generator: np.random.Generator, counts: Counter[str]) -> Iterator[Texts]:
        """Yield copies of a row; count words seen, masked and replaced, and n-grams."""
        originals = texts_of(self.rows, row)
        sides = [cut(text, self.words) for text in originals]
        tags = [self.lexicon.tags(row + side * len(self.rows)) if self.lexicon else None for side in range(len(sides))]

        def changed(side: int) -> str:
            def draw(place: int) -> str:
                assert self.lexicon is not None
                tag = tags[side]
                assert tag is not None
                return self.lexicon.draw(int(tag[place]), generator)

            return perturbed(sides[side], self.settings, self.mask, draw, generator, counts)

        for copy in range(number):
            chosen = SIDES[copy % len(SIDES)] if len(sides) == 2 else (0,)
            yield tuple(changed(side) if side in chosen else text for side, text in enumerate(originals))


class Rates(Protocol):
    """What of a text changes, as settings of `Perturb` say."""

    @property
    def mask_rate(self) -> float:
        """Probability that a word is masked."""
        ...

    @property
    def replace_rate(self) -> float:
        """Probability that a word becomes another one."""
        ...

    @property
    def ngram_rate(self) -> float:
        """Probability that a text becomes one of its n-grams."""
        ...

    @property
    def longest_ngram(self) -> int:
        """Words in the longest n-gram."""
        ...


def perturbed(
    text: Words, settings: Rates, mask: str, draw: Callable[[int], str], generator: np.random.Generator,
    counts: Counter[str],
) -> str:  # fmt: skip
    """Return one changed copy of a text; ``draw(place)`` returns a replacement for the word at a place."""
    words, gaps = list(text.words), list(text.gaps)
    for place, chance in enumerate(generator.random(len(words))):
        if chance < settings.mask_rate:
            words[place] = mask
            counts["masked"] += 1
        elif chance < settings.mask_rate + settings.replace_rate:
            words[place] = draw(place)
            counts["replaced"] += 1
    counts["words"] += len(words)
    if words and generator.random() < settings.ngram_rate:
        length = min(int(generator.integers(1, settings.longest_ngram + 1)), len(words))
        start = int(generator.integers(len(words) - length + 1))
        words, gaps = words[start : start + length], gaps[start : start + length]
        counts["ngrams"] += 1
    return joined(words, gaps)
