"""A student of the teacher's family: fewer layers, narrower layers, started from the teacher where shapes allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from compress.data.corpus import corpus_faults, read_corpus
from compress.data.dataset import Split
from compress.data.scripts import Segmentation
from compress.errors import DataError, Fault
from compress.families.forms.uneven import NARROWED
from compress.families.language_head import word_embeddings
from compress.families.registry import family_of
from compress.known import NOTHING, Known
from compress.models.auto import from_config
from compress.models.loading import content_of, load_config, load_model, quiet
from compress.models.word_pieces import started_pieces, trained_pieces
from compress.settings import at_least
from compress.student.base import Material
from compress.student.layer_map import depth_faults, layer_map, layer_map_faults
from compress.student.stand_in import WithStandIn
from compress.student.start import NAMED, copy_weights, layers_of, model_faults, name_faults, reads_alike, where
from compress.tasks.heads import head_of

ALL = "all"  # as many layers as the teacher


@dataclass(kw_only=True)
class Bert(WithStandIn):
    """A model of the teacher's family, BERT or similar: fewer layers, narrower layers."""

    layers: int | str | None = None  # how many, or all: as many as the teacher; default: half of them
    layer_map: Any = "uniform"  # teacher layers it starts from: uniform, skip, first, last, or a list as [2,4,6]
    hidden_size: int | None = None  # width; default: the teacher's
    heads: int | None = None  # attention heads per layer; default: the teacher's
    intermediate_size: int | None = None  # feed-forward units per layer; default: the teacher's
    start: str = "teacher"  # weights: teacher, pretrained (what it was fine-tuned from), random, or a folder or hub id
    vocabulary: int | None = (
        None  # size of a word-piece vocabulary of its own, learned from texts; default: the teacher's
    )
    vocabulary_corpus: str | None = None  # text file, one row per line, to learn it from; default: the training rows

    remedy: ClassVar[str] = "Name a model in student.start, or choose student=saved with student.model=FOLDER."

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Sizes are at least 1 and fit the teacher, the layer map is known, and weights can be started from."""
        if isinstance(self.layers, str) and self.layers != ALL:
            yield Fault("layers", self.layers, f"must be a whole number, or {ALL}")
        for name in ("layers", "hidden_size", "heads", "intermediate_size", "vocabulary"):
            if not isinstance(getattr(self, name), str):
                yield from at_least(self, name, 1)
        if self.vocabulary_corpus is not None:
            yield from corpus_faults("vocabulary_corpus", self.vocabulary_corpus)
            if self.vocabulary is None:
                yield Fault("vocabulary_corpus", self.vocabulary_corpus, "has no effect without student.vocabulary")
        if self.hidden_size and self.heads and self.hidden_size % self.heads:
            yield Fault("hidden_size", self.hidden_size, f"must be a multiple of student.heads = {self.heads}")
        yield from layer_map_faults("layer_map", self.layer_map)
        yield from name_faults(self.start)
        teacher, faults = self.lender("start", known)
        yield from faults
        if teacher is not None:
            yield from self._against(teacher, known)
        yield from super().faults(known)

    @property
    def stands_in(self) -> str | None:
        """A model that weights start from lends its shapes and its tokenizer too."""
        return None if self.start in NAMED else where(self.start)

    def stands_apart(self, teacher: Any) -> bool:
        """Return whether weights start from a model of another family than the teacher's, or with other tokens."""
        return self.stands_in is not None and not reads_alike(self.stands_in, teacher)

    def _against(self, teacher: Any, known: Known) -> Iterator[Fault]:
        faults = list(self._size_faults(teacher))
        yield from faults
        if self.vocabulary_corpus is not None and not any(corpus_faults("vocabulary_corpus", self.vocabulary_corpus)):
            try:
                read_corpus(self.vocabulary_corpus)
            except DataError as error:
                yield Fault("vocabulary_corpus", self.vocabulary_corpus, str(error).rstrip("."))
        if self.start == "pretrained" and known.fine_tuned is False:
            rule = "is not known: the teacher has its head already and is not fine-tuned here"
            yield Fault("start", self.start, rule, "Name the folder or hub id of the pretrained model.")
        elif self.start not in NAMED and not faults and not any(self.faults()):
            yield from model_faults(self.start, self.layer_map, teacher, self.config(teacher))

    def _size_faults(self, teacher: Any) -> Iterator[Fault]:
        count, most = self._count(teacher), teacher.num_hidden_layers
        yield from depth_faults(self.layer_map, count, most)
        width, heads = self.hidden_size or teacher.hidden_size, self.heads or teacher.num_attention_heads
        if width % heads and (self.hidden_size or self.heads or not getattr(teacher, "unpruned_size", None)):
            yield Fault("hidden_size", width, f"must be a multiple of the {heads} heads", "Set student.heads too.")

    @property
    def own_tokens(self) -> bool:
        """Whether the student cuts texts otherwise than the teacher does."""
        return self.vocabulary is not None

    def tokenizer(self, teacher: Any, texts: Split, words: Segmentation = Segmentation.letters) -> Any:
        """Return the teacher's tokenizer, or one of word pieces of ``texts`` or of the corpus."""
        if self.vocabulary is None:
            return teacher
        if self.vocabulary_corpus is not None:
            texts = read_corpus(self.vocabulary_corpus)
        return trained_pieces(teacher, [*texts.texts, *(texts.pairs or ())], self.vocabulary)

    def made_with(self) -> Any:
        """Of a corpus and of a model that weights start from the content counts, not where they lie."""
        made: dict[str, Any] = super().made_with() | {"start": self.start if self.start in NAMED else "model"}
        if self.vocabulary_corpus is not None:
            made["vocabulary_corpus"] = read_corpus(self.vocabulary_corpus).fingerprint
        return made

    def started_from(self, pretrained: str | None) -> str | None:
        """Return the content of the model that weights start from, where that is not the teacher."""
        source = self._source(pretrained)
        return None if source is None else content_of(source, load_config(source))

    def _source(self, pretrained: str | None) -> str | None:
        return pretrained if self.start == "pretrained" else self.stands_in

    def config(self, teacher: Any) -> Any:
        """Return the student's configuration; ``teacher`` is left as it was."""
        family = family_of(teacher)
        count = self._count(teacher)
        sizes = family.sizes(
            layers=count,
            hidden=self.hidden_size or teacher.hidden_size,
            heads=self.heads or teacher.num_attention_heads,
            units=self.intermediate_size or family.unit_count(teacher),
        )
        layers = layer_map(self.layer_map, count, teacher.num_hidden_layers)
        apart = getattr(teacher, "own_tokens", False) and self.stands_in is not None
        origin: dict[str, Any] = {"teacher_layers": None if apart else list(layers)}
        origin |= family.of_layers(teacher, [layer - 1 for layer in layers])
        for shape, asked in (("kept_heads", self.heads), ("neurons", self.intermediate_size)):
            if getattr(teacher, shape, None):  # an uneven teacher's layers keep their sizes, but where one is asked for
                origin[shape] = None if asked else [getattr(teacher, shape)[layer - 1] for layer in layers]
        if getattr(teacher, "ranks", None):  # factors of a teacher's matrices are kept where all sizes are
            sized = self.hidden_size or self.heads or self.intermediate_size
            origin["ranks"] = None if sized else [teacher.ranks[layer - 1] for layer in layers]
        if self.hidden_size or self.heads:  # what the teacher's states were before they were narrowed says nothing here
            origin |= {name: None for name in NARROWED if hasattr(teacher, name)}
        if self.vocabulary is not None:
            origin |= {"own_tokens": True, "vocab_size": self.vocabulary}
        return type(teacher)(**(teacher.to_dict() | sizes | origin))

    def build(self, teacher: PreTrainedModel, material: Material | None = None) -> PreTrainedModel:
        """Return a new student; every tensor whose twin in the model that it starts from has its shape is that one's.

        A layer's twin is the mapped one; in a model other than the teacher that has as many layers as the student,
        the one in its place. A head is taken over only where it is for the same labels, in their order.
        """
        config = self.config(teacher.config)
        if self.own_tokens:
            if material is None:
                raise ValueError("a student with a vocabulary of its own needs both tokenizers")
            _numbered(config, material)
        with quiet():
            student = from_config(config)
        student.eval()
        words = word_embeddings(student).detach().clone()
        source = self._source(None if material is None else material.pretrained)
        given = teacher
        if self.start == "teacher":
            copy_weights(teacher, student, config.teacher_layers)
        elif source is not None:
            known, given = load_config(source), load_model(source, head=head_of(config))
            mapped = self.start == "pretrained"
            layers = config.teacher_layers if mapped else layers_of(known, config, self.layer_map)
            copy_weights(given, student, layers, head=known.id2label == config.id2label)
        if self.own_tokens and material is not None:
            with torch.no_grad():
                word_embeddings(student).copy_(words)  # rows mean other pieces, also where there are as many
            if self.start != "random":
                _start_pieces(student, given, material)
        return student

    def _count(self, teacher: Any) -> int:
        if isinstance(self.layers, int):
            return self.layers
        return int(teacher.num_hidden_layers) if self.layers == ALL else max(1, int(teacher.num_hidden_layers) // 2)


def _numbered(config: Any, material: Material) -> None:
    """Set a configuration's vocabulary size and special tokens to those of the student's tokenizer."""
    config.vocab_size = len(material.student)
    for name in ("bos", "eos", "cls", "sep"):
        number = getattr(config, f"{name}_token_id", None)
        if number is not None:
            token = material.teacher.convert_ids_to_tokens(number)
            setattr(config, f"{name}_token_id", material.student.get_vocab().get(token))
    config.pad_token_id = material.student.pad_token_id


def _start_pieces(student: PreTrainedModel, given: PreTrainedModel, material: Material) -> None:
    """Start the word embeddings of a student with pieces of its own, where widths allow."""
    own, known = word_embeddings(student), word_embeddings(given)
    if own.shape[1] == known.shape[1] and len(known) >= len(material.teacher):
        with torch.no_grad():
            own.copy_(started_pieces(known, material.teacher, material.student))
