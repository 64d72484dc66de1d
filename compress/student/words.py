"""Students with word embeddings and a small network: their tokens, and the start of their embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from compress.data.dataset import Split
from compress.data.scripts import Segmentation
from compress.errors import Fault, ModelError
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.low_rank import low_rank
from compress.models.positions import longest_row
from compress.models.token_states import principal_components, states_of
from compress.models.vocabulary import of_words, wordless
from compress.models.word_pieces import same_characters, started_pieces
from compress.pipeline.state import State
from compress.settings import at_least, between
from compress.student.base import Material, Origin, Student
from compress.tasks.base import Task
from compress.tasks.heads import HEAD, with_head

WIDTH, LONGEST = 300, 128  # of embeddings and of rows, where no model of the teacher's has others


class Pieces(Enum):
    """sub_words: the teacher's word pieces; words: whole words of the training texts."""

    sub_words = "sub_words"
    words = "words"


class WordStart(Enum):
    """teacher: the teacher's word embeddings; states: what its layers make of each token read alone; random."""

    teacher = "teacher"
    states = "states"
    random = "random"


@dataclass(kw_only=True)
class EmbeddingStudent(Student):
    """Settings that students without attention share."""

    tokens: Pieces = Pieces.sub_words  # sub_words: the teacher's; words: those of the training texts
    vocabulary: int = 30000  # number of most frequent words to keep, if tokens are words
    min_count: int = 2  # rarer words become unknown, if tokens are words
    embedding_size: int | None = None  # default: the teacher's, or 300 where it has no model
    start: WordStart = WordStart.teacher  # start of the embeddings: teacher, states or random; the rest is random
    dropout: float = 0.1  # share of units dropped in training
    max_tokens: int | None = None  # where the teacher has no model, longer rows are cut; default: 128

    remedy: ClassVar[str] = "Set student.tokens=words and student.start=random."

    @property
    def needs_weights(self) -> bool:
        """Words that start at random need none."""
        return self.tokens is not Pieces.words or self.start is not WordStart.random

    def stem(self, task: Task) -> Any:
        """Return the sizes that this has where no model of a teacher has others, with the head of the task."""
        sizes: dict[str, Any] = {
            "hidden_size": WIDTH,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self._longest,
        }
        return with_head(PreTrainedConfig(**sizes), task.head_config())

    def origin(self, state: State) -> Origin:
        """Return the teacher's model; where there is none, words cut as BERT cuts them, and nothing to start from."""
        if state.teacher is not None:
            return super().origin(state)
        stem = self.stem(state.data.task)
        return Origin(
            [state.data.task.head_config(), self._longest],
            partial(wordless, self._longest),
            lambda material: evaluating(self.untrained(stem, material)),
        )

    @property
    def _longest(self) -> int:
        return self.max_tokens or LONGEST

    def untrained(self, teacher: Any, material: Material | None = None) -> PreTrainedModel:
        """Return the student with random weights; ``teacher`` is a configuration."""
        raise NotImplementedError(type(self).__name__)

    def build(self, teacher: PreTrainedModel, material: Material | None = None) -> PreTrainedModel:
        """Return a new student whose embeddings start as `start` says."""
        return self.started(evaluating(self.untrained(teacher.config, material)), teacher, material)

    @property
    def own_tokens(self) -> bool:
        """Whether the student tokenizes texts differently from the teacher."""
        return self.tokens is Pieces.words

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges."""
        for name in ("vocabulary", "min_count", "embedding_size"):
            yield from at_least(self, name, 1)
        yield from between(self, "dropout", 0, 1, open_high=True)
        yield from at_least(self, "max_tokens", 4)
        if self.max_tokens is not None and known.teacher is not None:
            yield Fault("max_tokens", self.max_tokens, "is the teacher's, which has a model", "Set teacher.max_tokens.")
        yield from super().faults(known)

    def tokenizer(self, teacher: Any, texts: Split, words: Segmentation = Segmentation.letters) -> Any:
        """Return the teacher's tokenizer, or one for the words of ``texts``, which needs no segmenter itself."""
        if self.tokens is Pieces.sub_words:
            return teacher
        return of_words(teacher, texts.all_texts(), self.vocabulary, self.min_count, words)

    def sizes(self, teacher: Any, material: Material | None) -> dict[str, Any]:
        """Return the configuration values that all such students share."""
        tokenizer = None if material is None else material.student
        return {name: getattr(teacher, name) for name in HEAD if hasattr(teacher, name)} | {
            "vocab_size": teacher.vocab_size if tokenizer is None else len(tokenizer),
            "embedding_size": self.embedding_size or _width(teacher),
            "dropout": self.dropout,
            "pairs": material is not None and material.pairs,
            "pad_token_id": getattr(teacher, "pad_token_id", None) if tokenizer is None else tokenizer.pad_token_id,
            "sep_token_id": None if tokenizer is None else tokenizer.sep_token_id,
            "max_position_embeddings": longest_row(teacher),
        }

    def started(self, student: PreTrainedModel, teacher: PreTrainedModel, material: Material | None) -> PreTrainedModel:
        """Return the student with its embeddings as `start` says."""
        if self.start is WordStart.random:
            return student
        own = student.get_input_embeddings()
        assert isinstance(own, nn.Embedding)
        if self.start is WordStart.states:
            weight = principal_components(self._states(teacher, material), own.embedding_dim)
        else:
            weight = narrowed(self._embeddings(teacher, material), own.embedding_dim)
        with torch.no_grad():
            own.weight.copy_(weight)
            if own.padding_idx is not None:
                own.weight[own.padding_idx] = 0
        return student

    def _embeddings(self, teacher: PreTrainedModel, material: Material | None) -> Tensor:
        """Return the teacher's word embeddings of the student's tokens."""
        weight = _word_embeddings(teacher).weight.detach()
        if self.own_tokens and material is not None:
            return started_pieces(weight, material.teacher, material.student)
        return weight

    def _states(self, teacher: PreTrainedModel, material: Material | None) -> Tensor:
        """Return the teacher's states of the student's tokens, scaled to the size of its word embeddings."""
        if material is None:
            raise ValueError("start=states needs both tokenizers")
        pieces = [[number] for number in range(teacher.config.vocab_size)]
        if self.own_tokens:
            pieces = same_characters(material.teacher, material.student)
        states = states_of(teacher.to(device()), material.teacher, pieces)  # type: ignore[arg-type]
        size = _word_embeddings(teacher).weight.detach().square().mean()
        return states * (size / states.square().mean()).sqrt()


def evaluating(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model in evaluation mode."""
    model.train(False)
    return model


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
