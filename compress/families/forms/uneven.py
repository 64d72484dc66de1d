"""Encoders whose layers differ in heads, feed-forward width or rank, or whose states are narrower than their heads.

transformers 5 removed head pruning (`prune_heads`, `config.pruned_heads`). Here the shape of every layer is
part of the configuration, so `save_pretrained` and the `Auto*` classes work: a model type ``compress_bert``
is registered for each family when `compress` is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from compress.families.base import Family, linear
from compress.families.forms.form import Form, stock_of
from compress.families.low_rank import LowRankLinear
from compress.families.registry import UNEVEN, family_of
from compress.models.quiet import quiet

NARROWED = ("kept_channels", "unpruned_size", "embeddings_projected")
"""What a configuration says of states that lost channels."""


class UnevenForm(Form):
    """A family's model, its layers in the shapes that its configuration says."""

    prefix = UNEVEN
    word = "Uneven"

    @classmethod
    def extended(cls, family: Family) -> type[PretrainedConfig]:
        """Return the class of configurations."""

        class Config(family.config_class):  # type: ignore[misc,name-defined]
            """The family's configuration, with the shape of each layer.

            ``kept_heads``: numbers of the heads in the unpruned model; ``neurons``: feed-forward units; None: all.
            ``kept_channels``: numbers of the hidden channels in the unpruned model, which had ``unpruned_size`` of
            them; heads, and the hidden layer of the classifier's head, keep the width that they had there. None: all.
            ``embeddings_projected``: embeddings reach the states through a projection (ELECTRA); None: where widths
            differ. ``ranks``: of each layer's low-rank matrices, by their names in the layer; None: all are whole.
            """

            model_type = cls.prefix + family.model_type
            kept_heads: list[list[int]] | None = None
            neurons: list[int] | None = None
            kept_channels: list[int] | None = None
            unpruned_size: int | None = None
            embeddings_projected: bool | None = None
            ranks: list[dict[str, int]] | None = None

        return Config

    def __init__(self, config: Any) -> None:
        with _undivided(config):
            super().__init__(config)
        size = head_size(config)
        if config.unpruned_size:
            self.family.widen(self, config)
        for layer, heads, units in zip(self.family.layers(self), kept_heads(config), neurons(config), strict=True):
            self.family.resize(layer, len(heads) * size, units)
            self.family.set_heads(layer, heads, size)
        for layer, factors in zip(self.family.layers(self), ranks(config), strict=True):
            for name, rank in factors.items():
                layer.set_submodule(name, LowRankLinear(linear(layer, name), rank))


@contextmanager
def _undivided(config: Any) -> Iterator[None]:
    """Let the family's classes build narrow states as one head; they refuse heads that do not divide the width."""
    heads = config.num_attention_heads
    if config.unpruned_size:
        config.num_attention_heads = 1
    try:
        yield
    finally:
        config.num_attention_heads = heads


def head_size(config: Any) -> int:
    """Return the width of one attention head."""
    return unpruned_size(config) // int(config.num_attention_heads)


def unpruned_size(config: Any) -> int:
    """Return the width of the states before any channel was removed."""
    return int(getattr(config, "unpruned_size", None) or config.hidden_size)


def kept_channels(config: Any) -> list[int]:
    """Return the hidden channels by their numbers in the unpruned model."""
    return getattr(config, "kept_channels", None) or list(range(config.hidden_size))


def kept_heads(config: Any) -> list[list[int]]:
    """Return each layer's heads by their numbers in the unpruned model."""
    kept = getattr(config, "kept_heads", None)
    return kept or [list(range(config.num_attention_heads)) for _ in range(config.num_hidden_layers)]


def neurons(config: Any) -> list[int]:
    """Return each layer's feed-forward units."""
    kept = getattr(config, "neurons", None)
    return kept or [family_of(config).unit_count(config)] * int(config.num_hidden_layers)


def ranks(config: Any) -> list[dict[str, int]]:
    """Return the ranks of each layer's low-rank matrices, by their names in the layer."""
    return getattr(config, "ranks", None) or [{} for _ in range(int(config.num_hidden_layers))]


def is_low_rank(config: Any) -> bool:
    """Return whether a model, of any type, has low-rank matrices in its layers."""
    return any(getattr(config, "ranks", None) or ())


def shrink(
    model: PreTrainedModel,
    *,
    heads: list[list[int]] | None = None,
    units: list[list[int]] | None = None,
    layers: list[int] | None = None,
) -> PreTrainedModel:
    """Return a model with only these parts, physically smaller; ``model`` is left as it was.

    All are positions in ``model`` as it is now: ``layers`` of all layers; ``heads`` and feed-forward ``units``
    by layer, of all its layers. None keeps all. What is kept computes exactly what it did; with nothing
    removed the model is the same. Raises ValueError where a layer would be left without heads or units, or the
    model without layers, and RuntimeError for heads or units that are in low-rank matrices.
    """
    config, family = model.config, family_of(model.config)
    before = kept_heads(config), neurons(config)
    heads = heads if heads is not None else [list(range(len(names))) for names in before[0]]
    units = units if units is not None else [list(range(width)) for width in before[1]]
    layers = layers if layers is not None else list(range(len(heads)))
    if not layers or any(not heads[i] or not units[i] for i in layers):
        raise ValueError("a model must keep a layer, and every layer at least one head and one feed-forward unit")
    shape: dict[str, Any] = {
        "kept_heads": [[before[0][i][head] for head in heads[i]] for i in layers],
        "neurons": [len(units[i]) for i in layers],
        **family.sizes(layers=len(layers)),
        **family.left_layers(config, layers),
    }
    if any(ranks(config)):
        shape["ranks"] = [ranks(config)[i] for i in layers]
    if getattr(config, "teacher_layers", None):
        shape["teacher_layers"] = [config.teacher_layers[i] for i in layers]
    return reshaped(model, shape, _kept_weights(model, heads, units, layers))


def reshaped(model: PreTrainedModel, shape: dict[str, Any], weights: dict[str, Tensor]) -> PreTrainedModel:
    """Return a model in its uneven form with these entries of the configuration, and these weights.

    Raises RuntimeError where a weight has not the shape that the configuration says.
    """
    config, family = model.config, family_of(model.config)
    settings = config.to_dict() | shape
    settings.pop("model_type")
    with quiet():
        smaller = UnevenForm.model_of(family, stock_of(model))(UnevenForm.config_of(family)(**settings))
    smaller.set_attn_implementation(config._attn_implementation)
    smaller.load_state_dict(weights)
    nn.Module.to(smaller, model.device)
    smaller.train(model.training)
    return smaller


Factors = Mapping[tuple[int, str], tuple[Tensor, Tensor]]
"""Factors up (outputs, rank) and down (rank, inputs) by a layer, counted from 0, and the name of a matrix there."""


def factored(model: PreTrainedModel, factors: Factors) -> PreTrainedModel:
    """Return a model in which these whole matrices are products of two; ``model`` is left as it was."""
    family, now, weights = family_of(model.config), [dict(layer) for layer in ranks(model.config)], model.state_dict()
    for (layer, name), (up, down) in factors.items():
        now[layer][name] = len(down)
        module = family.named(layer, name)
        del weights[f"{module}.weight"]
        weights |= {f"{module}.up.weight": up, f"{module}.down.weight": down}
        if f"{module}.bias" in weights:
            weights[f"{module}.up.bias"] = weights.pop(f"{module}.bias")
    return reshaped(model, {"ranks": now}, weights)


def multiplied(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model whose low-rank matrices are whole again, the products of their factors."""
    family, weights = family_of(model.config), model.state_dict()
    for layer, factors in enumerate(ranks(model.config)):
        for module in (family.named(layer, name) for name in factors):
            up, down = weights.pop(f"{module}.up.weight"), weights.pop(f"{module}.down.weight")
            weights[f"{module}.weight"] = (up.double() @ down.double()).to(up.dtype)
            if f"{module}.up.bias" in weights:
                weights[f"{module}.bias"] = weights.pop(f"{module}.up.bias")
    return reshaped(model, {"ranks": None}, weights)


def _kept_weights(
    model: PreTrainedModel, heads: list[list[int]], units: list[list[int]], layers: list[int]
) -> dict[str, Tensor]:
    """Return the state dictionary of the smaller model."""
    family, size = family_of(model.config), head_size(model.config)
    kept: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        place = family.place(name)
        if place is None:
            kept[name] = value
        elif place[0] in layers:
            index, rest = place
            kept[family.moved(name, layers.index(index))] = family.cut(rest, value, heads[index], units[index], size)
    return kept
