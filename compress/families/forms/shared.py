"""Encoders whose layers share weights, with factorised word embeddings, as transformers models that save and reload.

ALBERT's two savings (Lan et al., arXiv:1909.11942) for each family in the table: the attention, the
feed-forward network, or both, are one for all layers, and the words' embeddings are a narrow table times a
projection. What is shared is registered once, in the first layer; the other layers only refer to it. So it is
saved once, counted once and initialised once, and every layer is still a module of its own, whose states and
attentions transformers sees.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from compress.families.base import FAMILIES, UNEVEN, encoder_layers
from compress.families.forms.uneven import STOCK

SHARED = UNEVEN + "shared_"  # prefix of the model type
PARTS: dict[str, tuple[str, ...]] = {"attention": ("attention",), "feed_forward": ("intermediate", "output")}
"""The modules of a layer by what they are, each with its normalisation; DistilBERT names them otherwise."""
DISTILBERT_PARTS = {"attention": ("attention", "sa_layer_norm"), "feed_forward": ("ffn", "output_layer_norm")}


def shared_parts(family: str, share: str) -> tuple[str, ...]:
    """Return the names of a layer's modules that are one for all: ``share`` is all, attention or feed_forward."""
    parts = DISTILBERT_PARTS if family == "distilbert" else PARTS
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


def _shared(
    name: str, config_class: type[PreTrainedConfig], model_class: type[PreTrainedModel]
) -> tuple[type[PreTrainedConfig], type[PreTrainedModel]]:
    """Return the configuration and model classes of one family's form with shared layers."""

    class Config(config_class):  # type: ignore[misc,valid-type]
        """The family's configuration, with what its layers share and the rank of its word embeddings (0: whole)."""

        model_type = SHARED + name
        share: str = "all"
        word_embedding_size: int = 0

    class Model(model_class):  # type: ignore[misc,valid-type]
        """The family's classifier with one attention, one feed-forward network, or one of both, for all layers."""

        config_class: ClassVar[type] = Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            _share(encoder_layers(self, FAMILIES[name]), shared_parts(name, config.share))
            if config.word_embedding_size:
                embeddings = self.base_model.embeddings
                whole = embeddings.word_embeddings
                embeddings.word_embeddings = FactorisedEmbedding(
                    *(whole.num_embeddings, config.word_embedding_size, whole.embedding_dim),
                    padding=whole.padding_idx, spread=config.initializer_range,
                )  # fmt: skip

    Config.__name__ = Config.__qualname__ = f"Shared{config_class.__name__}"
    Model.__name__ = Model.__qualname__ = f"Shared{model_class.__name__}"
    return Config, Model


def _share(layers: nn.ModuleList, parts: tuple[str, ...]) -> None:
    """Let all layers use the first one's ``parts``."""
    for layer in list(layers)[1:]:
        for part in parts:
            delattr(layer, part)
            # past Module.__setattr__, which would register it a second time and so save it twice
            object.__setattr__(layer, part, getattr(layers[0], part))


SHARED_CLASSES = {name: _shared(name, *classes) for name, classes in STOCK.items()}
globals().update({one.__name__: one for classes in SHARED_CLASSES.values() for one in classes})  # found by name too
