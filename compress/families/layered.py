"""Models whose layers are known, whether or not they can be taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class Layered:
    """Models whose layers are known: an encoder with a stack of them below a head."""

    config_class: ClassVar[type[PretrainedConfig]]
    encoder: ClassVar[str]
    """The encoder within a model with a head, transformers' `base_model_prefix`."""
    stack: ClassVar[str]
    """The list of layers within the encoder."""
    embedding: ClassVar[str] = "embeddings"
    """How what comes before the layers is called within the encoder; further modules of it begin with the same name."""
    pooler: ClassVar[str] = "pooler"
    layers_return_tuples: ClassVar[bool] = False
    """Whether a layer returns its states as the first of several values."""

    @property
    def model_type(self) -> str:
        """Transformers' name of the type."""
        return str(self.config_class.model_type)

    def layers(self, model: nn.Module) -> nn.ModuleList:
        """Return the layers of a model with a head, first to last."""
        layers = model.get_submodule(f"{self.encoder}.{self.stack}")
        assert isinstance(layers, nn.ModuleList)
        return layers

    @contextmanager
    def running(self, model: nn.Module, layers: Sequence[nn.Module]) -> Iterator[None]:
        """Let a model run through other layers, for a time."""
        above, _, name = f"{self.encoder}.{self.stack}".rpartition(".")
        parent, own = model.get_submodule(above), self.layers(model)
        setattr(parent, name, nn.ModuleList(layers))
        try:
            yield
        finally:
            setattr(parent, name, own)

    def embedders(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return what a model computes before its first layer, in that order; the last gives the first states."""
        return [model.base_model.get_submodule(self.embedding)]

    def place(self, name: str) -> tuple[int, str] | None:
        """Return the layer of a parameter, counted from 0, and its name there; None for one outside the layers.

        ``name`` is the parameter's in a model with a head or in the encoder alone.
        """
        inner, start = name.removeprefix(f"{self.encoder}."), f"{self.stack}."
        if not inner.startswith(start):
            return None
        number, _, rest = inner.removeprefix(start).partition(".")
        return int(number), rest

    def named(self, layer: int, name: str) -> str:
        """Return the name in a model with a head of what is called ``name`` in a layer, counted from 0."""
        return f"{self.encoder}.{self.stack}.{layer}.{name}"

    def moved(self, name: str, layer: int) -> str:
        """Return the name of the same parameter in another layer; one outside the layers keeps its name."""
        place = self.place(name)
        if place is None:
            return name
        return f"{name.removesuffix(f'{place[0]}.{place[1]}')}{layer}.{place[1]}"

    def in_encoder(self, name: str) -> bool:
        """Return whether a parameter of a model with a head belongs to its encoder, the pooler included."""
        return name.startswith(f"{self.encoder}.")

    def in_embeddings(self, name: str) -> bool:
        """Return whether a parameter comes before the layers."""
        return name.removeprefix(f"{self.encoder}.").startswith(self.embedding)

    def in_pooler(self, name: str) -> bool:
        """Return whether a parameter belongs to the pooler, which is trained as part of a head."""
        return name.removeprefix(f"{self.encoder}.").startswith(f"{self.pooler}.")
