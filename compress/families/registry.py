"""The families that are known, and what a configuration says of its family and its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compress.errors import ModelError
from compress.families.base import Family
from compress.families.layered import Layered

UNEVEN = "compress_"  # prefix of the model type of a model whose layers differ in shape
SHARED = UNEVEN + "shared_"  # of one whose layers share weights
FAKE_QUANTIZED = UNEVEN + "qat_"  # of one with fake quantization
EXITING = UNEVEN + "exits_"  # of one with a head after every layer

FAMILIES: dict[str, Family] = {}
"""The families whose models can be taken apart, by transformers' model type."""
LAYERED: dict[str, Layered] = {}
"""Those, and the types of models whose layers are known and no more."""
_listeners: list[Callable[[Family], None]] = []


def register(family: Layered) -> None:
    """Make a family known, in the place of one with the same model type."""
    LAYERED[family.model_type] = family
    if isinstance(family, Family):
        FAMILIES[family.model_type] = family
        for listener in _listeners:
            listener(family)


def on_register(listener: Callable[[Family], None]) -> None:
    """Call ``listener`` with every family that is known, and with every one that will be."""
    if listener not in _listeners:
        _listeners.append(listener)
    for family in list(FAMILIES.values()):
        listener(family)


class Principal:
    """A composite model's configuration as far as layers go: that of its ``principal``, a single classifier."""

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
        """Heads per layer, before any pruning."""
        return int(self.principal.num_attention_heads)

    @property
    def kept_heads(self) -> list[list[int]] | None:
        """Heads that each layer keeps; None: all."""
        kept: list[list[int]] | None = getattr(self.principal, "kept_heads", None)
        return kept


def principal_config(config: Any) -> Any:
    """Return the configuration of one classifier whose layers stand for a model's: mostly the model's own.

    That of an ensemble's chosen member; that of the student in a model with a head for each of several tasks.
    """
    while isinstance(config, Principal):
        config = config.principal
    return config


def family_behind(model_type: str, *forms: str) -> Family | None:
    """Return the family of a model type that is its own, or that of a form with one of these prefixes; else None."""
    names = [model_type, *(model_type.removeprefix(form) for form in forms if model_type.startswith(form))]
    return next((FAMILIES[name] for name in names if name in FAMILIES), None)


def known_family(config: Any) -> Family | None:
    """Return the family of a transformers configuration; None for one whose layers are not known."""
    family = family_behind(str(config.model_type), UNEVEN, FAKE_QUANTIZED)
    return None if family is None or family.unsupported(config) else family


def remarks(config: Any) -> tuple[str, ...]:
    """Return what a report should say of a configuration's layers; nothing where they are not known."""
    family = known_family(config)
    return () if family is None else family.remarks(config)


def can_be_taken_apart(config: Any) -> bool:
    """Return whether a configuration is of a known family, and its layers can be changed one by one."""
    return known_family(config) is not None and not layers_share_weights(config)


def layers_share_weights(config: Any) -> bool:
    """Return whether layers of a configuration share weights, so that none can be changed alone."""
    family = known_family(config)
    return str(config.model_type).startswith(SHARED) or (family is not None and family.shares_weights(config))


def type_in_words(config: Any) -> str:
    """Return the type of a configuration, with what keeps one of a known family from being taken apart."""
    name = str(config.model_type)
    family = family_behind(name, UNEVEN, FAKE_QUANTIZED)
    if layers_share_weights(config):
        return f"{name} (its layers share weights; student=bert gives each its own)"
    return f"{name} {family.unsupported(config)}".rstrip() if family is not None else name


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration, whose layers may share weights; raises ModelError for others.

    Of a composite model it is that of its principal.
    """
    config = principal_config(config)
    family = known_family(config)
    if family is None:
        named = family_behind(str(config.model_type), UNEVEN, FAKE_QUANTIZED)
        feature = "" if named is None else f" {named.unsupported(config)}"
        raise ModelError(
            f"{config.model_type} models{feature} cannot be taken apart here. Supported: {', '.join(FAMILIES)}. "
            "Name a teacher of one of these families, or choose a student that learns from answers alone "
            "(student=bilstm, cnn, static or saved, or student.start=FOLDER); compress export takes any classifier "
            "as it is."
        )
    return family


def place_of(name: str) -> tuple[Family, int, str] | None:
    """Return the family, the layer, counted from 0, and the name there of a parameter, by its name in a whole model.

    None for one outside the layers of the known families.
    """
    for family in FAMILIES.values():
        place = family.place(name) if family.in_encoder(name) else None
        if place is not None:
            return family, *place
    return None


def known_layers(config: Any) -> Layered | None:
    """Return what is known of a configuration's layers, also of a type that cannot be taken apart; None for others."""
    return known_family(config) or LAYERED.get(str(config.model_type))


def in_embeddings(name: str) -> bool:
    """Return whether a parameter of a model of a known family comes before the layers, by its name in a whole model."""
    return any(family.in_encoder(name) and family.in_embeddings(name) for family in FAMILIES.values())


def layer_count(config: Any) -> int:
    """Return how many layers a configuration has whose states can be compared; 0 for models without any."""
    return int(getattr(config, "num_hidden_layers", 0))


def layers_below_top(name: str, config: Any) -> int:
    """Return how many steps below the head a parameter of a classifier lies.

    The head and pooler 0, the last layer 1, the first as many as there are layers, the embeddings one more.
    """
    family, count = family_of(config), layer_count(config)
    place = family.place(name)
    if place is not None:
        return count - place[0]
    return count + 1 if family.in_encoder(name) and family.in_embeddings(name) else 0
