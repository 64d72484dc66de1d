"""The start of a student's weights: tensors by name, layers by a map, and reasons why a model does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from compress.errors import Fault, ModelError
from compress.families.registry import FAMILIES, family_of, known_family
from compress.hub_access import absent
from compress.models.folder import VOCABULARIES
from compress.models.loading import load_config, load_tokenizer, parameter_shapes
from compress.student.layer_map import layer_map

NAMED = ("teacher", "pretrained", "random")


def where(start: str) -> str:
    """Return the folder or hub id for ``start``, which is none of `NAMED`."""
    return str(Path(start).expanduser()) if start.startswith("~") else start


def name_faults(start: str) -> Iterator[Fault]:
    """Yield a fault if ``start`` is empty, misspelled, or a missing folder."""
    if start in NAMED:
        return
    if not start:
        remedy = f"Use {', '.join(NAMED)},  or a folder with config.json and model.safetensors, or a hub id."
        yield Fault("start", start, "must name the start of the weights", remedy)
    elif reason := absent(start):
        yield Fault("start", start, *reason)
    elif not Path(where(start)).is_dir() and (close := get_close_matches(start, NAMED, n=1, cutoff=0.7)):
        yield Fault("start", start, "is unknown", f"Did you mean {close[0]}?")


def layers_of(source: Any, student: Any, choice: Any) -> tuple[int, ...]:
    """Return, for each student layer, the source's layer that it starts from, counted from 1.

    With equally many layers, each starts from its own; otherwise the layer map ``choice`` decides. Raises
    ValueError if the map does not fit.
    """
    layers, available = int(student.num_hidden_layers), int(source.num_hidden_layers)
    return tuple(range(1, layers + 1)) if layers == available else layer_map(choice, layers, available)


def twin_of(name: str, config: Any, layers: Sequence[int]) -> str:
    """Return the name that a student's tensor has in its source; ``layers`` as `layers_of` gives them."""
    family = family_of(config)
    place = family.place(name)
    return name if place is None else family.moved(name, layers[place[0]] - 1)


def copy_weights(
    source: PreTrainedModel, student: PreTrainedModel, layers: Sequence[int], *, head: bool = True
) -> None:
    """Copy to each tensor of ``student`` its twin in ``source``, if that has the same shape.

    Without ``head``, only the encoder's tensors, including embeddings and pooler.
    """
    family = family_of(student.config)
    weights, own = family.by_layer(source.config, source.state_dict()), student.state_dict()
    for name in own:
        twin = twin_of(name, student.config, layers)
        if (head or family.in_encoder(name)) and twin in weights and weights[twin].shape == own[name].shape:
            own[name] = weights[twin].clone()
    student.load_state_dict(own)


def model_faults(start: str, choice: Any, teacher: Any, student: Any) -> Iterator[Fault]:
    """Yield why the folder or hub id ``start`` does not fit; the other arguments are configurations.

    It must be of the student's family, with enough layers, with the student's sizes, and read the teacher's tokens.
    """
    place = where(start)
    try:
        source, tokens = load_config(place), _tokens(place)
    except ModelError as error:
        remedy = f"Or use one of {', '.join(NAMED)}."
        yield Fault("start", start, str(error).removeprefix(f"{place}: ").rstrip("."), remedy)
        return
    if known_family(source) is None or family_of(source) != family_of(student):
        rule = f"is of type {source.model_type}, where the teacher is of type {teacher.model_type}"
        yield Fault("start", start, rule, f"It must be one family of {', '.join(FAMILIES)}.")
        return
    if tokens and _tokens_of(teacher) not in ({}, tokens):
        yield Fault("start", start, "has another vocabulary than the teacher", "Its embeddings belong to other tokens.")
    if source.num_hidden_layers < student.num_hidden_layers:
        rule = f"has fewer layers, {source.num_hidden_layers}, than the student, {student.num_hidden_layers}"
        yield Fault("start", start, rule, "Set student.layers.")
        return
    try:
        layers = layers_of(source, student, choice)
    except ValueError as error:
        yield Fault("layer_map", choice, f"{error}, the layers of start = {start}")
        return
    family, ours = family_of(student), parameter_shapes(student)
    theirs = family.by_layer(source, parameter_shapes(source))
    for name, shape in ours.items():
        found = theirs.get(twin_of(name, student, layers))
        if family.in_encoder(name) and found != shape:
            rule = f"does not have the student's shapes: {name} is {_said(found)}, the student's {_said(shape)}"
            yield Fault("start", start, rule, "Set the student's sizes to its own.")
            return
    if source.num_attention_heads != student.num_attention_heads:
        rule = f"has {source.num_attention_heads} heads per layer, where the student has {student.num_attention_heads}"
        yield Fault("start", start, rule, "Set student.heads.")


def reads_alike(start: str, teacher: Any) -> bool:
    """Return whether a model is of the family of a teacher's configuration and has its vocabulary; raises ModelError.

    Vocabularies that are not known count as the same; a teacher whose layers are not known has nothing in common.
    """
    source, tokens = load_config(start), _tokens(start)
    own, taught_by = known_family(source), known_family(teacher)
    if taught_by is None or (own is not None and own != taught_by):
        return False
    return not tokens or _tokens_of(teacher) in ({}, tokens)


def _tokens(model: str) -> dict[str, int]:
    """Return the number of each token; empty for a folder without a tokenizer."""
    if Path(model).is_dir() and not any((Path(model) / name).is_file() for name in VOCABULARIES):
        return {}
    numbers: dict[str, int] = load_tokenizer(model).get_vocab()
    return numbers


def _tokens_of(teacher: Any) -> dict[str, int]:
    """Return the teacher's tokens; empty if its configuration does not name them."""
    try:
        return _tokens(teacher.name_or_path) if teacher.name_or_path else {}
    except ModelError:
        return {}


def _said(shape: Any) -> str:
    return "missing" if shape is None else " × ".join(map(str, shape))
