"""What a configuration says of a model that the rest of the package cannot do, or that transformers 5 leaves out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
)
from transformers.activations import ACT2FN
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from compress.errors import ModelError
from compress.families.registry import FAMILIES, UNEVEN, Principal
from compress.models.auto import auto_of, knows, model_class, purpose

_SIZES = (
    ("num_hidden_layers", 1), ("num_attention_heads", 1), ("hidden_size", 1), ("intermediate_size", 1),
    ("embedding_size", 1), ("vocab_size", 1), ("max_position_embeddings", 1), ("type_vocab_size", 0),
)  # fmt: skip
_ACTIVATIONS = ("hidden_act", "activation", "activation_function", "hidden_activation")
POSITIONS = "position_embedding_type"


def check_architecture(model: str | Path, config: Any, *, trust_remote_code: bool) -> None:
    """Raise ModelError where this is not an encoder that reads text, or cannot be built."""
    if str(config.model_type).startswith(UNEVEN) or isinstance(config, Principal):
        return
    named = getattr(config, "auto_map", None) or {}
    own_code = any(name.startswith(("AutoModel", "AutoConfig")) for name in named)
    if own_code and trust_remote_code:
        return
    if own_code:
        raise ModelError(
            f"{model}: it ships its own code, without which a model of type {config.model_type} may answer otherwise. "
            "If you trust it, set trust_remote_code=true beside it (teacher., student.)."
        )
    for rule in chain(_of_classes(config), _of_kind(config), _of_values(config)):
        raise ModelError(f"{model}: {rule}")


def check_features(model: str | Path, config: Any) -> None:
    """Raise ModelError where the saved model has features that this version of transformers would leave out."""
    for rule in () if getattr(config, "auto_map", None) else _left_out(config):  # trusted code knows its own
        raise ModelError(f"{model}: {rule}")


def ships_code(part: Any) -> bool:
    """Return whether the class of a configuration, model or tokenizer comes with a model, whatever it is named like."""
    return type(part).__module__.partition(".")[0] == TRANSFORMERS_DYNAMIC_MODULE_NAME


def _of_classes(config: Any) -> Iterator[str]:
    """Yield what is wrong with the names of the model's classes, by which its kind is told."""
    classes = getattr(config, "architectures", None)
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        yield f"architectures = {classes!r} in config.json must be a list of classes' names. Correct it there."


def _of_kind(config: Any) -> Iterator[str]:
    """Yield what kind of model this is, where it is not an encoder of text."""
    kind = f"a model of type {config.model_type}"
    instead = f"Name an encoder, such as {', '.join(FAMILIES)}."
    if getattr(config, "is_encoder_decoder", False):
        yield f"{kind} is an encoder-decoder, and only encoders can be compressed here. {instead}"
    elif model_class(config) is None:
        yield f"{kind} is not a text classifier: transformers has no {purpose(auto_of(config))} for it. {instead}"
    elif getattr(config, "is_decoder", False):
        yield f"is_decoder = true in config.json makes it a decoder, which reads from left to right only. {instead}"
    elif knows(AutoModelForCausalLM, type(config)) and not knows(AutoModelForMaskedLM, type(config)):
        yield f"{kind} is a decoder, which reads from left to right only, and not an encoder. {instead}"
    elif not {"input_ids", "attention_mask"} <= set(inspect.signature(model_class(config).forward).parameters):
        yield f"{kind} does not take token numbers and an attention mask. {instead}"
    quantized = getattr(config, "quantization_config", None)
    how = quantized.get("quant_method") if isinstance(quantized, dict) else getattr(quantized, "quant_method", None)
    how = getattr(how, "value", how)
    if quantized is not None and how != "bitsandbytes":
        by = f"by {how}" if how else "but quantization_config in config.json has no quant_method"
        yield f"its weights are quantized, {by}. Name the model that it was made from."


def _of_values(config: Any) -> Iterator[str]:
    """Yield values in config.json with which no model can be built."""
    for name, least in _SIZES:
        value = getattr(config, name, None)
        if value is None or (isinstance(value, list | tuple) and name in ("intermediate_size", "num_attention_heads")):
            continue
        if type(value) is not int or (value < least and (name, value) != ("max_position_embeddings", -1)):
            yield f"{name} = {value!r} in config.json must be a whole number of at least {least}. Correct it there."
    labels = getattr(config, "id2label", None) or {}
    if sorted(labels) != list(range(len(labels))):
        yield "id2label in config.json must number the labels 0, 1, 2 and so on. Correct it there."
    for name in _ACTIVATIONS:
        value = getattr(config, name, None)
        if value is not None and not (isinstance(value, str) and value in ACT2FN):
            yield f"{name} = {value!r} in config.json is not an activation that transformers knows. Correct it there."
    padding, words = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if padding is not None and (type(padding) is not int or not 0 <= padding < (words or padding + 1)):
        yield f"pad_token_id = {padding!r} in config.json must number one of {words} tokens. Correct it there."


def _left_out(config: Any) -> Iterator[str]:
    """Yield features of the saved model that this version of transformers would leave out."""
    positions = getattr(config, POSITIONS, None)
    if positions not in (None, "absolute") and not _reads_positions(config):
        yield (
            f"{POSITIONS} = {positions!r} in config.json, and transformers 5 no longer has it for models of type "
            f"{config.model_type}: its weights would be left out. Name a model with absolute positions."
        )
    if getattr(config, "add_cross_attention", False):
        yield "add_cross_attention = true in config.json: it reads another model's states. Name an encoder."


def _reads_positions(config: Any) -> bool:
    """Return whether the type's own configuration still has the entry: ESM's, for one."""
    return hasattr(type(config), POSITIONS)
