"""A MobileBERT student: as deep as the teacher, its layers narrow inside and as wide as the teacher's between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import MobileBertConfig, PreTrainedModel

from compress.errors import Fault
from compress.families.registry import family_of
from compress.known import NOTHING, Known
from compress.models.auto import from_config
from compress.models.loading import quiet
from compress.models.low_rank import low_rank
from compress.models.positions import longest_row
from compress.settings import at_least
from compress.student.base import Material
from compress.student.layer_map import depth_faults, layer_map, layer_map_faults
from compress.student.stand_in import BuiltFromModel
from compress.tasks.heads import HEAD


class Normalization(Enum):
    """no_norm: an element-wise scale and shift, which is faster; layer_norm: as in BERT."""

    no_norm = "no_norm"
    layer_norm = "layer_norm"


@dataclass(kw_only=True)
class Mobile(BuiltFromModel):
    """MobileBERT (Sun et al., arXiv:2004.02984): bottlenecks and stacked feed-forward networks in every layer."""

    layers: int | None = None  # how many; default: the teacher's
    layer_map: Any = "uniform"  # which teacher layers they are compared with: uniform, first, last, or a list
    bottleneck: int | None = None  # width inside layers; default: a quarter of the teacher's, a multiple of heads
    heads: int | None = None  # attention heads per layer; default: the teacher's
    feed_forward_networks: int = 4  # stacked in each layer
    intermediate_size: int | None = None  # units of each feed-forward network; default: 4 times the bottleneck
    normalization: Normalization = Normalization.no_norm  # no_norm (scale and shift alone, faster) or layer_norm
    trigram: bool = True  # a position's embedding sees the words beside it
    embedding_size: int | None = None  # width of word embeddings; default: a quarter of the teacher's hidden size
    narrow_attention: bool = False  # attention reads the bottleneck alone, as in MobileBERT-tiny
    copy_weights: bool = True  # start embeddings and head from the teacher's; false: at random

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Sizes fit the teacher, and the layer map is known; raises ModelError for a teacher of an unknown family."""
        for name in ("layers", "bottleneck", "heads", "feed_forward_networks", "intermediate_size", "embedding_size"):
            yield from at_least(self, name, 1)
        yield from layer_map_faults("layer_map", self.layer_map)
        yield from super().faults(known)

    def against(self, teacher: Any) -> Iterator[Fault]:
        """Sizes fit the model that this is built from, and its family is known."""
        family = family_of(teacher)
        if self.copy_weights and not family.sums_embeddings:
            rule = f"cannot start from a teacher of type {teacher.model_type}, whose embeddings are not a sum"
            yield Fault("copy_weights", True, rule, "Set student.copy_weights=false.")
        count, most = self.layers or teacher.num_hidden_layers, teacher.num_hidden_layers
        yield from depth_faults(self.layer_map, count, most)
        if self._bottleneck(teacher) % self._heads(teacher):
            rule = f"must be a multiple of the {self._heads(teacher)} heads"
            yield Fault("bottleneck", self._bottleneck(teacher), rule, "Set student.heads too.")
        if self._embedding_size(teacher) > teacher.hidden_size:
            yield Fault("embedding_size", self.embedding_size, f"must be at most the teacher's {teacher.hidden_size}")
        if self.trigram and teacher.pad_token_id is None:
            rule = "needs a teacher with a pad_token_id, so that padding says nothing to the word beside it"
            yield Fault("trigram", True, rule, "Set student.trigram=false.")

    def config(self, teacher: Any) -> Any:
        """Return the student's configuration; ``teacher`` is left as it was."""
        count, bottleneck = self.layers or teacher.num_hidden_layers, self._bottleneck(teacher)
        config = MobileBertConfig(
            vocab_size=teacher.vocab_size,
            hidden_size=teacher.hidden_size,
            num_hidden_layers=count,
            num_attention_heads=self._heads(teacher),
            intra_bottleneck_size=bottleneck,
            intermediate_size=self.intermediate_size or 4 * bottleneck,
            num_feedforward_networks=self.feed_forward_networks,
            normalization_type=self.normalization.value,
            trigram_input=self.trigram,
            embedding_size=self._embedding_size(teacher),
            use_bottleneck_attention=self.narrow_attention,
            key_query_shared_bottleneck=True,
            max_position_embeddings=longest_row(teacher),
            type_vocab_size=max(1, getattr(teacher, "type_vocab_size", 1)),
            initializer_range=teacher.initializer_range,
            pad_token_id=teacher.pad_token_id,
            **{name: getattr(teacher, name) for name in HEAD if hasattr(teacher, name)},
        )
        config.teacher_layers = list(layer_map(self.layer_map, count, teacher.num_hidden_layers))
        return config

    def build(self, teacher: PreTrainedModel, material: Material | None = None) -> PreTrainedModel:
        """Return a new student: random layers between embeddings and, for BERT and RoBERTa, a head from the teacher.

        Word embeddings start from the truncated singular value decomposition of the teacher's; of a trigram's
        three words, only the middle one counts at first. Where normalisation is no_norm, the teacher's
        layer normalisation of embeddings is replaced by its mean effect. The padding word's embedding is zero
        and stays so, as a trigram at a text's end must not see whether padding follows.
        """
        config = self.config(teacher.config)
        if material is not None:
            config.pad_token_id = material.student.pad_token_id
        with quiet():
            student = from_config(config)
        if self.copy_weights:
            own, weights = student.state_dict(), teacher.state_dict()
            own |= _embeddings(teacher, config)
            for ours, theirs in zip(("mobilebert.pooler.dense", "classifier"), _head(teacher), strict=False):
                pairs = {f"{ours}.{part}": weights[f"{theirs}.{part}"] for part in ("weight", "bias")}
                own |= {name: value.clone() for name, value in pairs.items() if value.shape == own[name].shape}
            student.load_state_dict(own)
        student.eval()
        return student

    def _heads(self, teacher: Any) -> int:
        return self.heads or int(teacher.num_attention_heads)

    def _bottleneck(self, teacher: Any) -> int:
        heads = self._heads(teacher)
        return self.bottleneck or max(int(teacher.hidden_size) // 4 // heads, 1) * heads

    def _embedding_size(self, teacher: Any) -> int:
        return self.embedding_size or max(int(teacher.hidden_size) // 4, 1)


def _head(teacher: PreTrainedModel) -> tuple[str, ...]:
    """Return the two linear layers of a head that computes what MobileBERT's does; nothing for others."""
    family = family_of(teacher.config)
    return (family.head(teacher) or ()) if family.reads_first_token_with_tanh else ()


@torch.no_grad()
def _embeddings(teacher: PreTrainedModel, config: Any) -> dict[str, Tensor]:
    """Return what the student's embeddings start from, by name."""
    summed = family_of(teacher.config).embeddings(teacher)
    words, positions = summed.words.clone(), summed.positions
    positions = positions[-config.max_position_embeddings :]  # RoBERTa's first ones are never used
    types = torch.zeros(1, words.shape[1]) if summed.types is None else summed.types
    scale, shift = summed.norm.weight.detach(), summed.norm.bias.detach()
    project = summed.project
    matrix = torch.eye(words.shape[1]) if project is None else project.weight
    if config.normalization_type == "no_norm":
        spread = _spread(words, positions, types)
        centred = (x - x.mean(-1, keepdim=True) for x in (words, positions, types))
        words, positions, types = (x * scale @ matrix.T for x in centred)
        shift = shift if project is None else matrix @ shift + project.bias
        norm = torch.full_like(shift, 1 / spread), shift
    else:
        words, positions, types = (x @ matrix.T for x in (words, positions, types))
        norm = (scale, shift) if project is None else (torch.ones(config.hidden_size), torch.zeros(config.hidden_size))
    if config.pad_token_id is not None:
        words[config.pad_token_id] = 0
    left, right = low_rank(words, config.embedding_size)
    beside = (config.embedding_size,) * 2 if config.trigram_input else (0, 0)  # the next word's, the one's before
    if not config.trigram_input and config.embedding_size == config.hidden_size:
        left = words  # transformers leaves the transformation out then
    names = {
        "word_embeddings.weight": left,
        "position_embeddings.weight": positions,
        "token_type_embeddings.weight": types,
        "embedding_transformation.weight": functional.pad(right.T, beside).contiguous(),
        "embedding_transformation.bias": torch.zeros(config.hidden_size),
        "LayerNorm.weight": norm[0],
        "LayerNorm.bias": norm[1],
    }
    return {f"mobilebert.embeddings.{name}": value for name, value in names.items()}


def _spread(words: Tensor, positions: Tensor, types: Tensor) -> float:
    """Return the mean standard deviation by which layer normalisation would divide a word at some position."""
    places = torch.arange(len(words)) % len(positions)
    return float((words + positions[places] + types[0]).std(-1, correction=0).mean())
