"""A static student: a weighted mean of token embeddings that start from the teacher's states (model2vec)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.auto import from_config
from compress.models.positions import longest_row
from compress.models.static import StaticConfig, StaticForSequenceClassification
from compress.models.tokens import tokenize
from compress.settings import at_least, positive
from compress.student.base import Material
from compress.student.words import EmbeddingStudent, WordStart


@dataclass(kw_only=True)
class Static(EmbeddingStudent):
    """A weighted mean of the embeddings of tokens and bigrams, and one hidden layer: no token sees another.

    Embeddings and weights start as model2vec's (Tulkens & van Dongen 2024, github.com/MinishLab/model2vec).
    """

    embedding_size: int | None = 256  # width of the embeddings; null: the teacher's
    start: WordStart = WordStart.states  # start of the embeddings: states, teacher or random; the rest is random
    bigrams: int = 0  # rows of a table that all pairs of neighbouring tokens share, by a hash; 0: none
    hidden_size: int = 256  # units between the mean and the output
    smoothing: float = 1e-3  # a in the start of a token's weight, a / (a + its share of the training rows' tokens)

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges."""
        yield from super().faults(known)
        yield from at_least(self, "bigrams", 0)
        yield from at_least(self, "hidden_size", 1)
        yield from positive(self, "smoothing")

    @property
    def reads_texts(self) -> bool:
        """The start of the weights counts the tokens of the training texts."""
        return True

    def config(self, teacher: Any, material: Material | None = None) -> StaticConfig:
        """Return the student's configuration."""
        return StaticConfig(**self.sizes(teacher, material), bigrams=self.bigrams, hidden_size=self.hidden_size)

    def untrained(self, teacher: Any, material: Material | None = None) -> PreTrainedModel:
        """Return a static classifier whose tokens weigh as smoothed inverse frequencies, and all else is random.

        Arora et al. 2017, "A simple but tough-to-beat baseline for sentence embeddings".
        """
        student = from_config(self.config(teacher, material))
        assert isinstance(student, StaticForSequenceClassification)
        if material is not None and material.rows is not None:
            numbers = tokenize(material.rows, material.student, longest_row(teacher)).columns["input_ids"]
            share = np.bincount(numbers, minlength=student.config.vocab_size) / len(numbers)
            weights = torch.from_numpy(np.log(self.smoothing / (self.smoothing + share)))
            with torch.no_grad():
                student.weights.weight.copy_(weights[:, None])
        return student
