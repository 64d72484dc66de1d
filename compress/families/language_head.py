"""Masked-language-model heads of every family in one form: load them, and put them on any encoder's states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from compress.errors import ModelError
from compress.families.base import LanguageHeadNames
from compress.families.registry import FAMILIES, family_behind, family_of
from compress.models.loading import load_any_masked_lm, plain_errors


class LanguageHead(nn.Module):
    """Dense layer, activation, layer norm, then scores: products with the word embeddings, and a bias.

    New ones are random. ``decoder`` (vocabulary, width) stands in for the embeddings where a model does not tie
    the two.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = embedding_width(config)
        self.dense = nn.Linear(config.hidden_size, width)
        family = family_of(config)
        self.norm = nn.LayerNorm(width, eps=getattr(config, family.norm_eps_entry, 1e-12))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.activation = ACT2FN[family.language_activation(config)]
        self.decoder: nn.Parameter | None = None
        nn.init.normal_(self.dense.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.dense.bias)

    def features(self, states: Tensor) -> Tensor:
        """Hidden states (…, hidden) to what is compared with each word's embedding (…, width)."""
        features: Tensor = self.norm(self.activation(self.dense(states)))
        return features

    def forward(self, states: Tensor, embeddings: Tensor) -> Tensor:
        """Hidden states (…, hidden) and word embeddings (vocabulary, width) to logits (…, vocabulary)."""
        weight = embeddings if self.decoder is None else self.decoder
        return nn.functional.linear(self.features(states), weight, self.bias)

    def start_from(self, other: LanguageHead) -> None:
        """Take over every parameter of ``other`` whose shape is the same, but an untied decoder."""
        known, own = other.state_dict(), self.state_dict()
        same = {name: known[name] for name in own if name in known and known[name].shape == own[name].shape}
        self.load_state_dict(own | same)


def embedding_width(config: Any) -> int:
    """Return the width of the word embeddings."""
    return int(getattr(config, "embedding_size", None) or config.hidden_size)


def word_embeddings(model: PreTrainedModel) -> Tensor:
    """Return a model's word embeddings (vocabulary, width), the parameter itself."""
    words = model.get_input_embeddings()
    assert isinstance(words, nn.Embedding)
    return words.weight


def has_language_head(model: str | Path, config: Any) -> bool:
    """Return whether a folder's weights, or a hub id's declared architecture, have a masked-language-model head."""
    folder = Path(model)
    if folder.is_dir():
        names = _names(config)
        wanted = names.only_there or f"{names.dense}.weight"
        for path in folder.glob("*.safetensors"):
            with plain_errors(model), safe_open(path, framework="pt") as file:
                if wanted in file.keys():  # noqa: SIM118
                    return True
        return False
    classes = config.architectures or []
    return any(name.endswith("ForMaskedLM") or name == "BertForPreTraining" for name in classes)


def fills_masks(config: Any, *forms: str) -> bool:
    """Return whether a configuration, perhaps of one of these forms, is of a family with masked language models."""
    family = family_behind(str(config.model_type), *forms)
    return family is not None and family.language_head() is not None


def types_that_fill_masks() -> list[str]:
    """Return the families with masked language models."""
    return [name for name, family in FAMILIES.items() if family.language_head() is not None]


def _names(config: Any) -> LanguageHeadNames:
    names = family_of(config).language_head()
    if names is None:
        raise ModelError(f"{config.model_type} models have no masked language model here.")
    return names


def load_language_model(model: str | Path, on: torch.device | None = None) -> tuple[PreTrainedModel, LanguageHead]:
    """Return the encoder and the head of a folder or hub id, in evaluation mode; a head that it lacks is random."""
    loaded, _ = load_any_masked_lm(model)
    head = head_of_model(loaded)
    encoder = loaded.base_model
    assert isinstance(encoder, PreTrainedModel)
    for part in (encoder, head):
        nn.Module.to(part, on)
        part.eval()
    return encoder, head


def head_of_model(model: PreTrainedModel) -> LanguageHead:
    """Return a copy of the head of a masked language model of transformers'."""
    names = _names(model.config)
    head = LanguageHead(model.config)
    for own, name in ((head.dense, names.dense), (head.norm, names.norm)):
        no_bias = {"bias": torch.zeros_like(own.get_parameter("bias"))}  # where the model has none
        own.load_state_dict(no_bias | model.get_submodule(name).state_dict())
    decoder = _decoder(model)
    with torch.no_grad():
        head.bias.copy_(decoder.bias)
    if decoder.weight is not word_embeddings(model):
        head.decoder = nn.Parameter(decoder.weight.detach().clone())
    return head


@torch.no_grad()
def put_head(head: LanguageHead, model: PreTrainedModel) -> None:
    """Write a head, but biases for which there is no place, into a masked language model of transformers'."""
    names = _names(model.config)
    for own, name in ((head.dense, names.dense), (head.norm, names.norm)):
        part = model.get_submodule(name)
        known = own.state_dict()
        part.load_state_dict({entry: known[entry] for entry in part.state_dict()})
    decoder = _decoder(model)
    decoder.bias.copy_(head.bias)
    if head.decoder is not None:
        decoder.weight.copy_(head.decoder)


def _decoder(model: PreTrainedModel) -> nn.Linear:
    decoder = model.get_output_embeddings()
    assert isinstance(decoder, nn.Linear)
    return decoder
