"""Students with word embeddings and a small network: their tokens, and the start of their embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.errors import Fault, ModelError
from compress.known import NOTHING, Known
from compress.models.low_rank import low_rank
from compress.models.positions import longest_row
from compress.models.vocabulary import of_words
from compress.models.word_pieces import started_pieces
from compress.settings import at_least, between
from compress.student.base import Reading, Student
from compress.tasks.heads import HEAD


class Pieces(Enum):
    """sub_words: the teacher's word pieces; words: whole words of the training texts."""

    sub_words = "sub_words"
    words = "words"


class Start(Enum):
    """teacher: the teacher's word embeddings; random."""

    teacher = "teacher"
    random = "random"


@dataclass(kw_only=True)
class OfEmbeddings(Student):
    """Settings that students without attention share."""

    tokens: Pieces = Pieces.sub_words  # sub_words: the teacher's; words: those of the training texts
    vocabulary: int = 30000  # number of most frequent words to keep, if tokens are words
    min_count: int = 2  # rarer words become unknown, if tokens are words
    embedding_size: int | None = None  # default: the size of the teacher's word embeddings
    start: Start = Start.teacher  # start of the embeddings: teacher or random; the rest is random
    dropout: float = 0.1  # share of units dropped in training

    @property
    def own_tokens(self) -> bool:
        """Whether the student tokenizes texts differently from the teacher."""
        return self.tokens is Pieces.words

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges."""
        for name in ("vocabulary", "min_count", "embedding_size"):
            yield from at_least(self, name, 1)
        yield from between(self, "dropout", 0, 1, open_high=True)
        yield from super().faults(known)

    def tokenizer(self, teacher: Any, texts: Split) -> Any:
        """Return the teacher's tokenizer, or one for the words of ``texts``."""
        if self.tokens is Pieces.sub_words:
            return teacher
        return of_words(teacher, chain(texts.texts, texts.pairs or ()), self.vocabulary, self.min_count)

    def sizes(self, teacher: Any, reading: Reading | None) -> dict[str, Any]:
        """Return the configuration values that all such students share."""
        tokenizer = None if reading is None else reading.student
        return {name: getattr(teacher, name) for name in HEAD if hasattr(teacher, name)} | {
            "vocab_size": teacher.vocab_size if tokenizer is None else len(tokenizer),
            "embedding_size": self.embedding_size or _width(teacher),
            "dropout": self.dropout,
            "pairs": reading is not None and reading.pairs,
            "pad_token_id": getattr(teacher, "pad_token_id", None) if tokenizer is None else tokenizer.pad_token_id,
            "sep_token_id": None if tokenizer is None else tokenizer.sep_token_id,
            "max_position_embeddings": longest_row(teacher),
        }

    def started(self, student: PreTrainedModel, teacher: PreTrainedModel, reading: Reading | None) -> PreTrainedModel:
        """Return the student with its embeddings as `start` says, in evaluation mode."""
        student.eval()
        if self.start is Start.random:
            return student
        known = _word_embeddings(teacher)
        own = student.get_input_embeddings()
        assert isinstance(own, nn.Embedding)
        weight = known.weight.detach()
        if self.own_tokens and reading is not None:
            weight = started_pieces(weight, reading.teacher, reading.student)
        with torch.no_grad():
            own.weight.copy_(narrowed(weight, own.embedding_dim))
            if own.padding_idx is not None:
                own.weight[own.padding_idx] = 0
        return student


def narrowed(weight: Tensor, width: int) -> Tensor:
    """Return embeddings (words, width): as they are, their nearest of that rank, or followed by zeros."""
    given = weight.shape[1]
    return nn.functional.pad(weight, (0, width - given)) if width >= given else low_rank(weight, width)[0]


def _word_embeddings(teacher: PreTrainedModel) -> nn.Embedding:
    """Return the teacher's word embeddings; raises ModelError if a model with code of its own does not give them."""
    try:
        known = teacher.get_input_embeddings()
    except NotImplementedError:
        known = None
    if not isinstance(known, nn.Embedding):
        raise ModelError(
            f"a teacher of type {teacher.config.model_type} does not say where its word embeddings are "
            "(get_input_embeddings). Set student.start=random."
        )
    return known


def _width(teacher: Any) -> int:
    """Return the width of the teacher's word embeddings."""
    return int(getattr(teacher, "embedding_size", None) or teacher.hidden_size)
