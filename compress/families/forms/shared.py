"""Encoders whose layers share weights, with factorised word embeddings, as transformers models that save and reload.

ALBERT's two savings (Lan et al., arXiv:1909.11942) for every family: the attention, the
feed-forward network, or both, are one for all layers, and the words' embeddings are a narrow table times a
projection. What is shared is registered once, in the first layer; the other layers only refer to it. So it is
saved once, counted once and initialised once, and every layer is still a module of its own, whose states and
attentions transformers sees.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig

from compress.families.base import Family
from compress.families.forms.form import Form
from compress.families.registry import SHARED


def shared_parts(family: Family, share: str) -> tuple[str, ...]:
    """Return the names of a layer's modules that are one for all: ``share`` is all, attention or feed_forward."""
    parts = {"attention": family.attention_modules(), "feed_forward": family.feed_forward_modules()}
    return parts["attention"] + parts["feed_forward"] if share == "all" else parts[share]


class FactorisedEmbedding(nn.Module):
    """Word embeddings of rank ``size``: a table (words, size) times a projection (size, width)."""

    def __init__(self, words: int, size: int, width: int, padding: int | None, spread: float) -> None:
        super().__init__()
        self.table = nn.Embedding(words, size, padding_idx=padding)
        self.project = nn.Linear(size, width, bias=False)
        for weight in (self.table.weight, self.project.weight):
            nn.init.normal_(weight, std=spread)

    def forward(self, words: Tensor) -> Tensor:
        """Return embeddings (batch, tokens, width) of word numbers (batch, tokens)."""
        embeddings: Tensor = self.project(self.table(words))
        return embeddings


class SharedForm(Form):
    """A family's model with one attention, one feed-forward network, or one of both, for all layers."""

    prefix = SHARED
    word = "Shared"

    @classmethod
    def extended(cls, family: Family) -> type[PretrainedConfig]:
        """Return the class of configurations."""

        class Config(family.config_class):  # type: ignore[misc,name-defined]
            """The family's configuration, with what its layers share and the rank of its word embeddings (0: whole)."""

            model_type = cls.prefix + family.model_type
            share: str = "all"
            word_embedding_size: int = 0

        return Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        _share(self.family.layers(self), shared_parts(self.family, config.share))
        if config.word_embedding_size:
            whole: Any = self.get_input_embeddings()
            factorised = FactorisedEmbedding(
                *(whole.num_embeddings, config.word_embedding_size, whole.embedding_dim),
                padding=whole.padding_idx, spread=config.initializer_range,
            )  # fmt: skip
            self.set_input_embeddings(factorised)


def _share(layers: nn.ModuleList, parts: tuple[str, ...]) -> None:
    """Let all layers use the first one's ``parts``."""
    for layer in list(layers)[1:]:
        for part in parts:
            delattr(layer, part)
            # past Module.__setattr__, which would register it a second time and so save it twice
            object.__setattr__(layer, part, getattr(layers[0], part))
