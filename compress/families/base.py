"""Where each supported family of encoders keeps its layers, projections and sizes.

One table for everything that takes a model apart: student building, head pruning, importance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from compress.errors import ModelError


@dataclass(frozen=True)
class Family:
    """Attribute paths in a transformers model, and names in its configuration."""

    model_type: str
    base: str  # the encoder inside a model with a head
    layers: str = "encoder.layer"  # within the encoder
    query: str = "attention.self.query"  # within a layer
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    head: str = "classifier.dense"  # within a classifier: the hidden layer of its head
    head_output: str = "classifier.out_proj"
    layers_key: str = "num_hidden_layers"  # in the configuration
    heads_key: str = "num_attention_heads"
    hidden_key: str = "hidden_size"
    neurons_key: str = "intermediate_size"


FAMILIES = {
    family.model_type: family
    for family in (
        Family("bert", "bert", head="bert.pooler.dense", head_output="classifier"),
        Family("roberta", "roberta"),
        Family("electra", "electra"),
        Family(
            "distilbert",
            "distilbert",
            layers="transformer.layer",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            attention_output="attention.out_lin",
            up="ffn.lin1",
            down="ffn.lin2",
            head="pre_classifier",
            head_output="classifier",
            layers_key="n_layers",
            heads_key="n_heads",
            hidden_key="dim",
            neurons_key="hidden_dim",
        ),
    )
}
UNEVEN = "compress_"  # prefix of the model type of a model whose layers differ in shape
FAKE_QUANTIZED = "qat_"  # after that prefix: of one with fake quantization


class Principal:
    """What the configuration of a composite model says of layers: that of its ``principal``, one classifier's."""

    principal: Any

    @property
    def hidden_size(self) -> int:
        """Width of the states."""
        return int(self.principal.hidden_size)

    @property
    def num_hidden_layers(self) -> int:
        """How many layers there are."""
        return int(self.principal.num_hidden_layers)

    @property
    def num_attention_heads(self) -> int:
        """Heads a layer, before any pruning."""
        return int(self.principal.num_attention_heads)

    @property
    def kept_heads(self) -> list[list[int]] | None:
        """Heads that each layer keeps; None: all."""
        kept: list[list[int]] | None = getattr(self.principal, "kept_heads", None)
        return kept


def can_be_taken_apart(config: Any) -> bool:
    """Return whether a configuration is of a family in the table."""
    return _family_name(config) in FAMILIES


def layer_count(config: Any) -> int:
    """Return how many layers a configuration has whose states can be compared; 0 for models without any."""
    return int(getattr(config, "num_hidden_layers", 0))


def principal_config(config: Any) -> Any:
    """Return the configuration of one classifier whose layers stand for a model's: mostly the model's own.

    That of an ensemble's chosen member; that of the student in a model with a head for each of several tasks.
    """
    while isinstance(config, Principal):
        config = config.principal
    return config


def layers_prefix(config: Any) -> str:
    """Return how the names of the layers' parameters begin."""
    return f"{family_of(config).base}.{family_of(config).layers}."


def layers_below_top(name: str, config: Any) -> int:
    """Return how many steps below the head a parameter of a classifier lies.

    The head and pooler 0, the last layer 1, the first as many as there are layers, the embeddings one more.
    """
    family, count, prefix = family_of(config), layer_count(config), layers_prefix(config)
    if name.startswith(prefix):
        return count - int(name.removeprefix(prefix).partition(".")[0])
    return count + 1 if name.startswith(f"{family.base}.embeddings") else 0


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration; raises ModelError for an unsupported one."""
    config = principal_config(config)
    found = FAMILIES.get(_family_name(config))
    if found is None:
        raise ModelError(
            f"{config.model_type} models cannot be taken apart here: supported are {', '.join(FAMILIES)}. "
            "Name a teacher of one of these families."
        )
    return found


def _family_name(config: Any) -> str:
    return str(config.model_type).removeprefix(UNEVEN).removeprefix(FAKE_QUANTIZED)


def encoder_layers(model: nn.Module, family: Family) -> nn.ModuleList:
    """Return the encoder's layers, first to last."""
    found = model.get_submodule(f"{family.base}.{family.layers}")
    assert isinstance(found, nn.ModuleList)
    return found


def linear(layer: nn.Module, path: str) -> nn.Linear:
    """Return the linear layer at ``path`` below ``layer``."""
    found = layer.get_submodule(path)
    assert isinstance(found, nn.Linear)
    return found


def replace_linear(layer: nn.Module, path: str, new: nn.Linear) -> None:
    """Put ``new`` at ``path`` below ``layer``."""
    parent, _, name = path.rpartition(".")
    setattr(layer.get_submodule(parent), name, new)
