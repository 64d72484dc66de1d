"""A family of encoders: where its models keep layers, heads and units, and how those are cut, resized and observed.

Everything that takes a model apart asks here, so a family is one file. `Family` follows from a few names for models of
linear layers; a family that is built otherwise overrides the methods that differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.layered import Layered
from compress.families.low_rank import linear_layers


@dataclass
class Attention:
    """What passes through one layer's attention. A listener may put another ``context`` in its place."""

    query: Tensor  # (batch, heads, tokens, head size)
    key: Tensor  # as the query
    value: Tensor  # as the query
    scores: Tensor  # (batch, heads, tokens, tokens), before masking and softmax
    context: Tensor  # (batch, heads, tokens, head size): what each head hands on


Listener = Callable[[Attention], None]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Projection:
    """A linear layer within an encoder layer whose outputs are heads or feed-forward units."""

    name: str  # within the layer
    holds: int = 1  # how often its outputs hold all of them, one after another: 3 for fused queries, keys and values


@dataclass(frozen=True)
class LanguageHeadNames:
    """Where a family's masked language model has the parts of its head."""

    dense: str
    norm: str
    only_there: str | None = None  # a weight that no classifier of the family has; None: those of ``dense``


@dataclass(frozen=True)
class SummedEmbeddings:
    """Embeddings that are a sum, normalised and perhaps projected."""

    words: Tensor  # (vocabulary, width)
    positions: Tensor  # (positions, width)
    types: Tensor | None  # (types, width)
    norm: nn.LayerNorm
    project: nn.Linear | None = None  # from that width to the states'


class Family(Layered, ABC):
    """Models that can be taken apart."""

    units_entry: ClassVar[str] = "intermediate_size"
    """The configuration's entry for the number of feed-forward units."""
    sums_embeddings: ClassVar[bool] = True
    """Whether embeddings are the normalised sum of words, positions and perhaps types."""
    shares_layers: ClassVar[bool] = True
    """Whether layers have the same modules, so that all can have one's weights."""
    graph_can_be_resized: ClassVar[bool] = True
    """Whether an exported graph takes other numbers of heads and units, so that they can be timed."""
    norm_eps_entry: ClassVar[str] = "layer_norm_eps"
    """The configuration's entry for what normalisations add to the variance."""
    known_to_transformers_js: ClassVar[bool] = False
    lacking_in_transformers_js: ClassVar[tuple[str, ...]] = ()
    """What transformers.js has no class for, of a family that it knows: "token classification"."""
    loses_channels: ClassVar[bool] = False
    """Whether hidden channels can be removed: `set_heads` says how wide heads are."""
    projects_tokens_alone: ClassVar[bool] = True
    """Whether the linear layers of attention read tokens and nothing else, so that one range of values suits each."""
    reads_first_token_with_tanh: ClassVar[bool] = False
    """Whether a classifier's head is: first token, dense, tanh, dense."""

    @abstractmethod
    def projections(self) -> tuple[Projection, ...]:
        """Return what gives queries, keys and values: three linear layers, or a fused one."""

    @abstractmethod
    def attention_output_name(self) -> str:
        """Return the linear layer within a layer that all heads go through."""

    @abstractmethod
    def feed_forward(self) -> tuple[Projection, ...]:
        """Return what gives the feed-forward units: a linear layer, and that of the gates where there are any."""

    @abstractmethod
    def feed_forward_output_name(self) -> str:
        """Return the linear layer within a layer that all units go through."""

    @abstractmethod
    def attention_modules(self) -> tuple[str, ...]:
        """Return a layer's modules for attention, its normalisation included."""

    @abstractmethod
    def feed_forward_modules(self) -> tuple[str, ...]:
        """Return a layer's modules for the feed-forward network, its normalisation included."""

    def in_attention(self, name: str) -> bool:
        """Return whether what has this name within a layer belongs to attention; all else is the feed-forward's."""
        return name.partition(".")[0] in self.attention_modules()

    # configuration

    def unsupported(self, config: Any) -> str:
        """Return the feature of a configuration for which its models cannot be taken apart; "" where they can."""
        return ""

    def shares_weights(self, config: Any) -> bool:
        """Return whether layers of a configuration share weights, so that none can be changed alone."""
        return False

    def sharing(self, layers: int) -> dict[str, Any] | None:
        """Return the entries of the family's configuration for layers that share all weights; None: there are none."""
        return None

    def by_layer(self, config: Any, named: Mapping[str, Value]) -> dict[str, Value]:
        """Return what is named like a configuration's parameters, with what layers share under the name of each."""
        return dict(named)

    def sizes(
        self,
        *,
        layers: int | None = None,
        heads: int | None = None,
        hidden: int | None = None,
        units: int | None = None,
    ) -> dict[str, int]:
        """Return the entries of a configuration that say these sizes; heads and units per layer."""
        names = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden}
        own = {self.config_class.attribute_map.get(name, name): size for name, size in names.items()}
        own[self.units_entry] = units
        return {name: size for name, size in own.items() if size is not None}

    def unit_count(self, config: Any) -> int:
        """Return the feed-forward units of a layer before any pruning."""
        return int(getattr(config, self.units_entry))

    def of_layers(self, config: Any, layers: Sequence[int]) -> dict[str, Any]:
        """Return the entries of a configuration that say something of each layer, for some of them, from 0."""
        return {}

    def left_layers(self, config: Any, layers: Sequence[int]) -> dict[str, Any]:
        """Return the entries of the uneven form that say what is left of a configuration's layers, counted from 0."""
        return self.of_layers(config, layers)

    def remarks(self, config: Any) -> tuple[str, ...]:
        """Return what a report should say of a configuration's layers."""
        return ()

    def served_by_transformers_js(self, purpose: str | None) -> bool:
        """Return whether transformers.js has a class of the family for a purpose, such as "token classification"."""
        return self.known_to_transformers_js and purpose not in self.lacking_in_transformers_js

    # one layer

    def attention_output(self, layer: nn.Module) -> nn.Linear:
        """Return the linear layer whose inputs are the heads' outputs, head by head."""
        return linear(layer, self.attention_output_name())

    def feed_forward_output(self, layer: nn.Module) -> nn.Linear:
        """Return the linear layer whose inputs are the feed-forward units."""
        return linear(layer, self.feed_forward_output_name())

    def matrix_names(self) -> tuple[str, ...]:
        """Return all linear layers of a layer, in the order in which they are computed."""
        reading, units = ([part.name for part in parts] for parts in (self.projections(), self.feed_forward()))
        return (*reading, self.attention_output_name(), *units, self.feed_forward_output_name())

    def matrices(self, layer: nn.Module) -> dict[str, nn.Module]:
        """Return the modules of `matrix_names` by name; of a low-rank one its two factors."""
        modules = ((name, layer.get_submodule(name)) for name in self.matrix_names())
        return {part: module for name, whole in modules for part, module in linear_layers(name, whole).items()}

    def outputs(self, inner: int, units: int) -> dict[str, int]:
        """Return how many outputs the projections have, for heads that are ``inner`` wide together."""
        widths = ((self.projections(), inner), (self.feed_forward(), units))
        return {part.name: part.holds * width for parts, width in widths for part in parts}

    def inputs(self, inner: int, units: int) -> dict[str, int]:
        """Return how many inputs those have that all heads and all units go through."""
        return {self.attention_output_name(): inner, self.feed_forward_output_name(): units}

    def rows(self, part: Projection, kept: Sequence[int], size: int, count: int) -> list[int]:
        """Return the outputs of a projection that are those of some heads, of ``count`` heads of this size.

        Feed-forward units are heads of size 1.
        """
        return [
            (copy * count + number) * size + place
            for copy in range(part.holds)
            for number in kept
            for place in range(size)
        ]

    def resize(self, layer: nn.Module, inner: int, units: int) -> None:
        """Give a layer fresh linear layers for these sizes where they differ; weights are loaded later."""
        outputs, inputs = self.outputs(inner, units), self.inputs(inner, units)
        for name in self.matrix_names():
            replace_linear(layer, name, inputs.get(name), outputs.get(name))

    def cut(self, name: str, value: Tensor, heads: Sequence[int], units: Sequence[int], size: int) -> Tensor:
        """Return what is left of a parameter, by its name within a layer, with only these heads of this size and units.

        What belongs to neither is returned as it is.
        """
        module, _, kind = name.rpartition(".")
        for parts, kept, width in ((self.projections(), heads, size), (self.feed_forward(), units, 1)):
            for part in (part for part in parts if part.name == module):
                count = len(value) // (part.holds * width)
                return value[torch.tensor(self.rows(part, kept, width, count), device=value.device)]
        inner = [head * size + place for head in heads for place in range(size)]
        columns = {self.attention_output_name(): inner, self.feed_forward_output_name(): list(units)}
        if module in columns and kind == "weight":
            return value[:, torch.tensor(columns[module], device=value.device)]
        return value

    def head_weights(self, layer: nn.Module, size: int) -> list[Tensor]:
        """Return the weights that leave with each head: tensors (heads, …, inputs), one per linear layer."""
        output = self.attention_output(layer)
        count = output.in_features // size
        parts = [self._by_number(layer, part, size, count) for part in self.projections()]
        return [*parts, output.weight.detach().T.reshape(count, size, -1)]

    def unit_weights(self, layer: nn.Module) -> Tensor:
        """Return the weights that leave with each feed-forward unit, (units, …)."""
        output = self.feed_forward_output(layer)
        count = output.in_features
        parts = [self._by_number(layer, part, 1, count).flatten(1) for part in self.feed_forward()]
        return torch.cat([*parts, output.weight.detach().T], 1)

    def _by_number(self, layer: nn.Module, part: Projection, size: int, count: int) -> Tensor:
        """Return a projection's weights by head, (heads, outputs of one, inputs)."""
        weight = linear(layer, part.name).weight.detach()
        rows = [row for number in range(count) for row in self.rows(part, [number], size, count)]
        return weight[torch.tensor(rows, device=weight.device)].reshape(count, part.holds * size, -1)

    def head_parameters(self, layer: nn.Module) -> int:
        """Return how many parameters all heads of a layer have together."""
        reading = [layer.get_submodule(part.name) for part in self.projections()]
        return _parameters(reading) + self.attention_output(layer).weight.numel()

    def unit_parameters(self, layer: nn.Module) -> int:
        """Return how many parameters all feed-forward units of a layer have together."""
        reading = [layer.get_submodule(part.name) for part in self.feed_forward()]
        return _parameters(reading) + self.feed_forward_output(layer).weight.numel()

    # a whole model

    def widen(self, model: PreTrainedModel, config: Any) -> None:
        """Give the hidden layer of the classifier's head, if it has one, the width that narrow states hide."""
        head = self.head(model)
        if head is not None:
            replace_linear(model, head[0], outputs=config.unpruned_size)
            replace_linear(model, head[1], inputs=config.unpruned_size)

    def set_heads(self, layer: nn.Module, kept: Sequence[int], size: int) -> None:
        """Tell a layer's attention which heads of the unpruned model it has and how wide they are.

        Attention keeps their number, their width or both in attributes; where all layers share something by heads,
        such as a bias of positions, it must also take its own heads' part of that.
        """

    def embeddings(self, model: PreTrainedModel) -> SummedEmbeddings:
        """Return a model's embeddings, of a family with `sums_embeddings`; their parts are named as in BERT."""
        return summed(self.embedders(model)[0])

    def tables_by_head(self) -> tuple[str, ...]:
        """Return the weights outside the layers, by the ends of their names, that have a column for each head."""
        return ()

    def stream(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the modules that give states: what is embedded, and each layer's normalisations, first to last."""
        norms = (part for layer in self.layers(model) for part in layer.modules() if isinstance(part, nn.LayerNorm))
        return [self.embedders(model)[-1], *norms]

    def narrowed(self, model: PreTrainedModel) -> dict[str, Any]:
        """Return what the configuration of a model that lost hidden channels must say of its embeddings."""
        return {}

    def head(self, model: nn.Module) -> tuple[str, str] | None:
        """Return the hidden layer of a model's head and its output layer; None where the head has no hidden layer."""
        return None

    def listening(self, model: PreTrainedModel, listener: Listener) -> AbstractContextManager[None] | None:
        """Return a context in which every layer's attention calls ``listener`` and uses the context it leaves.

        Contexts may be nested; the innermost listener is the one that is called. None, as here, where attention asks
        transformers' `AttentionInterface`, through which `compress.models.attention` listens.
        """
        return None

    def heard(self, model: PreTrainedModel, name: str, forward: Callable[..., Any]) -> AbstractContextManager[None]:
        """Let the module of this name in each layer compute ``forward(module, …)`` for a time."""
        return forward_replaced([layer.get_submodule(name) for layer in self.layers(model)], forward)

    # masked language models

    def language_head(self) -> LanguageHeadNames | None:
        """Return where a masked language model has its head; None for a family without one."""
        return None

    def language_activation(self, config: Any) -> str:
        """Return the activation in that head, by transformers' name."""
        return "gelu"


def summed(embeddings: nn.Module, project: nn.Linear | None = None) -> SummedEmbeddings:
    """Return embeddings whose parts are named as in BERT."""
    words, positions = embeddings.get_submodule("word_embeddings"), embeddings.get_submodule("position_embeddings")
    types, norm = getattr(embeddings, "token_type_embeddings", None), embeddings.get_submodule("LayerNorm")
    assert isinstance(words, nn.Embedding)
    assert isinstance(positions, nn.Embedding)
    assert isinstance(norm, nn.LayerNorm)
    return SummedEmbeddings(words.weight, positions.weight, None if types is None else types.weight, norm, project)


def has_submodule(model: nn.Module, path: str) -> bool:
    """Return whether there is a module at ``path`` below ``model``."""
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def linear(layer: nn.Module, path: str) -> nn.Linear:
    """Return the linear layer at ``path`` below ``layer``."""
    module = layer.get_submodule(path)
    assert isinstance(module, nn.Linear)
    return module


def replace_linear(layer: nn.Module, path: str, inputs: int | None = None, outputs: int | None = None) -> None:
    """Put a fresh linear layer at ``path`` below ``layer``, if its sizes are not these already."""
    old = linear(layer, path)
    inputs, outputs = inputs or old.in_features, outputs or old.out_features
    if (inputs, outputs) != (old.in_features, old.out_features):
        parent, _, name = path.rpartition(".")
        new = nn.Linear(inputs, outputs, bias=old.bias is not None, dtype=old.weight.dtype)
        setattr(layer.get_submodule(parent), name, new)


@contextmanager
def forward_replaced(modules: Sequence[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Let modules compute something else for a time: ``forward(module, …)`` of what each is given."""
    before = [vars(module).get("forward") for module in modules]  # an instance's own, which is rare
    try:
        for module in modules:
            module.forward = partial(forward, module)  # its hooks still run
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            vars(module).pop("forward", None)
            if own is not None:
                module.forward = own


def _parameters(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
