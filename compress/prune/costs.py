"""What a shape costs: a table of what each head, each width and each layer adds to the rest of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from compress.families.forms.uneven import kept_heads, neurons
from compress.families.registry import family_of
from compress.models.outputs import parameters

Shape = tuple[tuple[int, int], ...]
"""A layer: its heads and its feed-forward units; (0, 0) for a layer that is left out."""

GONE = (0, 0)


def shape_of(config: Any) -> Shape:
    """Return the shape of a configuration."""
    return tuple((len(heads), width) for heads, width in zip(kept_heads(config), neurons(config), strict=True))


@dataclass(frozen=True)
class CostTable(ABC):
    """What models of other sizes cost."""

    unit: str  # "ms", "parameters" or "MiB"

    @abstractmethod
    def least(self) -> float:
        """Return the cost of the smallest."""


@dataclass(frozen=True)
class Costs(CostTable):
    """The cost of a shape is ``rest``, and for each layer ``layer`` and what its heads and its units add."""

    rest: float  # embeddings, pooler, classifier
    layer: float  # of a layer with one head and the least width
    heads: tuple[float, ...]  # added by 1, 2, … heads; the first is 0
    neurons: tuple[tuple[int, float], ...]  # (width, added), from the least width, which adds 0

    def of_layer(self, heads: int, width: int) -> float:
        """Return the cost of one layer; 0 for one that is left out."""
        return self.layer + self.heads[heads - 1] + dict(self.neurons)[width] if (heads, width) != GONE else 0.0

    def of(self, shape: Shape) -> float:
        """Return the cost of a whole model."""
        return self.rest + sum(self.of_layer(*size) for size in shape)

    def with_sizes_scaled(self, factor: float) -> Costs:
        """Return the table with what heads and units add times a factor."""
        return replace(
            self,
            heads=tuple(cost * factor for cost in self.heads),
            neurons=tuple((width, cost * factor) for width, cost in self.neurons),
        )

    def sizes(self, heads: int, width: int) -> list[tuple[int, int]]:
        """Return what a layer of this size can become: left out first, itself last."""
        widths = [known for known, _ in self.neurons if known <= width]
        return [GONE, *((fewer, narrower) for fewer in range(1, heads + 1) for narrower in widths)]

    def least(self) -> float:
        """Return the cost of the smallest shape: one layer with one head and the least width."""
        return self.rest + self.layer


def widths(config: Any, count: int) -> list[int]:
    """Return ``count`` evenly spaced widths up to the widest layer's, and the width of each layer."""
    most = max(neurons(config))
    return sorted({-(-most * part // count) for part in range(1, count + 1)} | set(neurons(config)))


def counted(model: PreTrainedModel, count: int, unit: str, scale: float, aside: float = 0.0) -> Costs:
    """Return the table of exact counts: parameters times ``scale``, with ``aside`` added once."""
    family, shape = family_of(model.config), shape_of(model.config)
    layer, (heads, width) = family.layers(model)[-1], shape[-1]  # the first may have a normalisation less
    head, neuron = family.head_parameters(layer) // heads, family.unit_parameters(layer) // width
    known = widths(model.config, count)
    least = parameters(layer) - (heads - 1) * head - (width - known[0]) * neuron
    layers = sum(least + (heads - 1) * head + (width - known[0]) * neuron for heads, width in shape)
    return Costs(
        unit,
        (parameters(model) - layers) * scale + aside,
        least * scale,
        tuple(number * head * scale for number in range(max(heads for heads, _ in shape))),
        tuple((width, (width - known[0]) * neuron * scale) for width in known),
    )


def told(costs: Costs) -> str:
    """Return the table in a sentence."""
    heads = ", ".join(f"{number} +{_told(cost)}" for number, cost in enumerate(costs.heads[1:], start=2))
    units = ", ".join(f"{width:,} +{_told(cost)}" for width, cost in costs.neurons[1:])
    least = costs.neurons[0][0]
    return (
        f"table, {costs.unit}: {_told(costs.rest)} for all but the layers; {_told(costs.layer)} for a layer of 1 head "
        f"and {least:,} units; heads add {heads or 'nothing'}; units add {units or 'nothing'}"
    )


def amount(value: float, unit: str) -> str:
    """Return a cost with its unit."""
    return f"{_told(value)} {unit}"


def _told(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 1000 or cost == int(cost) else f"{cost:.3g}"


def drawn(shape: Shape | Sequence[Sequence[int]]) -> str:
    """Return a shape in words, layer by layer."""
    return ", ".join("left out" if not heads else f"{heads} × {width:,}" for heads, width in shape)
