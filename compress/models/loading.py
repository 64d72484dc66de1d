"""Load and save models as transformers folders: safetensors only, no pickle, no remote code unasked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
)

from compress.errors import CompressError, ModelError
from compress.families.registry import FAMILIES
from compress.families.shipped import ship, without_shipped
from compress.files import hash_folder, no_folder, write_text
from compress.hub_access import meant_path, quick
from compress.models.architecture import check_architecture, check_features, ships_code
from compress.models.auto import auto_of, from_config, from_pretrained, model_class
from compress.models.folder import CONFIG, FACTS, TOKENIZER_CONFIG, check_folder, check_tokenizer_files, only_pieces
from compress.models.heads import output_parameters
from compress.models.pruned_heads import with_pruned_heads
from compress.models.quiet import quiet as quiet  # noqa: PLC0414  # most take it from here
from compress.models.registration import register
from compress.models.sentence_transformers import write_modules
from compress.models.stated import stated_config, stated_family
from compress.models.tokenizer import fit_tokenizer, save_tokenizer
from compress.models.trusted import is_trusted, remember
from compress.models.weights import Finding, check_files, check_finding, check_finite, check_quantized, local_folder
from compress.tasks.heads import set_head

register()  # classes of this package's models are used here without a look-up by their type

_NO_WORDS = 4  # words at most, of a tokenizer that was made without a vocabulary
_UNKNOWN_TYPE = re.compile("^Unrecognized model in|has model type .* does not recognize")
_ORIGIN = re.compile("name_or_path$|^(special_tokens_map|tokenizer|vocab|merges)_file$")


def load_config(model: str | Path, *, trust_remote_code: bool = False, weights: bool = True) -> Any:
    """Return the configuration of a folder or hub id; raises ModelError in plain words.

    A folder must hold weights too, all that the encoder needs and none beside, unless ``weights`` is off.
    """
    config = _config(model, trust_remote_code=trust_remote_code, weights=weights)
    if weights:
        with plain_errors(model, CONFIG):  # the weights' own files were read by now
            check_files(model, config, lambda: _without_values(model, config, trust_remote_code))
        check_features(model, config)
        named = any(name.endswith("Classification") for name in config.architectures or ())
        quantized = getattr(config, "quantization_config", None) is not None
        if not named and not quantized and local_folder(model) is not None:
            with plain_errors(model, CONFIG):
                found = _architectures(*_without_values(model, config, trust_remote_code))
                config.architectures = found or config.architectures
    return config


def _architectures(loaded: PreTrainedModel, finding: Finding) -> list[str] | None:
    """Return what a configuration should say that names no classifier: one, if the weights hold its head."""
    lacking = {*finding["missing_keys"], *(name for name, *_ in finding["mismatched_keys"] or ())}
    return None if set(output_parameters(loaded)) & lacking else [type(loaded).__name__]


def check_trained(model: str | Path, config: Any, *, trust_remote_code: bool = False) -> None:
    """Raise ModelError where weights on this machine are not those of a whole classifier, its head included."""
    if local_folder(model) is not None and getattr(config, "quantization_config", None) is None:
        with plain_errors(model, CONFIG):
            check_finding(model, *_without_values(model, config, trust_remote_code), trained=True)


def _without_values(model: str | Path, config: Any, trust_remote_code: bool) -> tuple[PreTrainedModel, Finding]:
    """Return a classifier without values, and what its weights would lack: only their names and shapes are read."""
    return _from_pretrained(model, config, trust_remote_code, device_map={"": "meta"})


def _config(model: str | Path, *, trust_remote_code: bool, weights: bool) -> Any:
    """Return the configuration, of an architecture that can be built; the weights are not compared with it."""
    _must_be_readable(Path(model))
    check_folder(Path(model), weights=weights)
    trust_remote_code = trust_remote_code or is_trusted(Path(model))
    with plain_errors(model, CONFIG), quiet():
        if (family := stated_family(model)) is not None:
            config = stated_config(model, family)
        else:
            config = without_shipped(AutoConfig.from_pretrained(str(model), trust_remote_code=trust_remote_code))
        if hasattr(config, FACTS):  # of the folder's own use: what is made from it is used in its own way
            delattr(config, FACTS)
        remember(config)
        if weights:
            check_architecture(model, config, trust_remote_code=trust_remote_code)
        return with_pruned_heads(model, config)


def _from_pretrained(
    model: str | Path, config: Any, trust_remote_code: bool, **settings: Any
) -> tuple[PreTrainedModel, Finding]:
    trust_remote_code = trust_remote_code or is_trusted(Path(model))
    with quiet():
        loaded: tuple[PreTrainedModel, Finding] = from_pretrained(
            model,
            config,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            dtype="float32",
            ignore_mismatched_sizes=True,  # they are looked at afterwards, and named
            output_loading_info=True,
            **settings,
        )
    remember(loaded[0])
    if ships_code(config) and model_class(config) is not type(loaded[0]):
        # transformers registers it itself, except for a configuration whose class is named like one of its own
        auto_of(config).register(type(config), type(loaded[0]), exist_ok=True)
    return loaded


def _must_be_readable(folder: Path) -> None:
    """Raise ModelError where a pipe, socket or device stands for a folder or in it: to read it could take for ever."""
    remedy = "Name a folder written by transformers' save_pretrained."
    if (rule := no_folder(folder)) and folder.exists():
        raise ModelError(f"{folder}: {rule}. {remedy}")
    for path in () if rule else folder.iterdir():
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"{path}: is not a regular file. {remedy}")


def load_model(
    model: str | Path,
    *,
    trust_remote_code: bool = False,
    head: Mapping[str, Any] | None = None,
    trained: bool | None = None,
    on: torch.device | None = None,
) -> PreTrainedModel:
    """Return a classifier in evaluation mode, on the CPU or ``on`` a device.

    ``head`` gives the head's settings. ``trained`` says that the weights must hold the head too (default: unless
    ``head`` is given); else a head and a pooler that they lack start at random. Raises ModelError where they lack
    more, where the architecture would leave out some of them, and where they are not finite.
    """
    trained = head is None if trained is None else trained
    config = _config(model, trust_remote_code=trust_remote_code, weights=True)
    quantized = getattr(config, "quantization_config", None) is not None  # by bitsandbytes, which would take a GPU
    set_head(config, head or {})
    with plain_errors(model):
        loaded, finding = _from_pretrained(
            model, config, trust_remote_code, device_map={"": on or torch.device("cpu")} if quantized else None
        )
    if quantized:
        check_quantized(model, loaded)
    check_finding(model, loaded, finding, trained=trained)
    if not quantized:
        check_finite(model, loaded.named_parameters())
        nn.Module.to(loaded, on)
    check_features(model, config)
    loaded.eval()
    return loaded


def without_values(config: Any) -> PreTrainedModel:
    """Return a classifier of a configuration whose parameters have shapes and no values."""
    with torch.device("meta"), quiet():
        return from_config(config)


def parameter_shapes(config: Any) -> dict[str, torch.Size]:
    """Return the shapes of a classifier's parameters by name, without making their values."""
    return {name: parameter.shape for name, parameter in without_values(config).named_parameters()}


def content_of(model: str | Path, config: Any) -> str:
    """Return what tells one version of a model from another: the hub's commit, or a hash of the folder."""
    return getattr(config, "_commit_hash", None) or hash_folder(Path(model))


def load_masked_lm(model: str | Path, *, on: torch.device | None = None) -> PreTrainedModel:
    """Return a masked language model in evaluation mode; raises ModelError where its head was not trained."""
    loaded, finding = load_any_masked_lm(model)
    if finding["missing_keys"]:
        raise ModelError(
            f"{model}: has no trained head of a masked language model. Name one that was trained to fill masks "
            "(its config.json says ForMaskedLM)."
        )
    nn.Module.to(loaded, on)
    return loaded


def load_any_masked_lm(model: str | Path) -> tuple[PreTrainedModel, Finding]:
    """Return a masked language model in evaluation mode on the CPU, its head perhaps random, and what was missing."""
    config = load_config(model)
    with plain_errors(model), quiet():
        loaded, finding = AutoModelForMaskedLM.from_pretrained(
            str(model),
            use_safetensors=True,
            dtype="float32",
            config=config,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    check_finding(model, loaded, finding, trained=False)
    check_finite(model, loaded.named_parameters())
    loaded.eval()
    return loaded, finding


def load_tokenizer(model: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Return the fast tokenizer of a folder or hub id; raises ModelError where it has none, or not the model's.

    ``token_type_ids`` are among its inputs where the model has types and the tokenizer gives the second text one of
    its own, and nowhere else: what the tokenizer's class is named does not matter.
    """
    folder = Path(model)
    _must_be_readable(folder)
    if folder.is_dir():
        check_tokenizer_files(folder)
    with plain_errors(model, TOKENIZER_CONFIG), quiet():
        tokenizer = _tokenizer(model, trust_remote_code)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{model}: has no fast tokenizer (tokenizer.json), which export and training need.")
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{model}: its tokenizer has no padding token. Set pad_token in tokenizer_config.json.")
    if not folder.is_dir() or (folder / CONFIG).is_file():
        with plain_errors(model, TOKENIZER_CONFIG):
            fit_tokenizer(model, tokenizer, _config(model, trust_remote_code=trust_remote_code, weights=False))
    return tokenizer


def _tokenizer(model: str | Path, trust_remote_code: bool) -> Any:
    """Return a tokenizer; raises ModelError where it is only a model of sentencepiece that cannot be converted here.

    transformers complains of tiktoken then, or makes a tokenizer without words where its type reads another name.
    """
    pieces = only_pieces(Path(model))
    trust_remote_code = trust_remote_code or is_trusted(Path(model))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(model), trust_remote_code=trust_remote_code, tokenizer_type=stated_family(model)
        )
        remember(tokenizer)
        if not pieces or len(set(tokenizer.get_vocab()) - set(tokenizer.get_added_vocab())) > _NO_WORDS:
            return tokenizer
        reason = None
    except Exception as error:  # whatever a tokenizer of any type raises
        if not pieces or "trust_remote_code" in str(error):
            raise
        reason = error
    raise ModelError(
        f"{model}: has no fast tokenizer (tokenizer.json), and its {pieces} cannot be converted here. Run pip install "
        "sentencepiece tiktoken protobuf, and AutoTokenizer.from_pretrained(folder).save_pretrained(folder), which "
        "writes tokenizer.json; or download tokenizer.json for this model."
    ) from reason


def save_model(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer; beside a model type of ours its code, see `ship`.

    A model of sentence vectors becomes a folder that sentence-transformers opens, see `write_modules`.
    """
    with quiet():
        model.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
    ship(model, folder)
    write_modules(model, tokenizer, folder)
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        if path.is_file():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if (kept := _without_origin(saved)) != saved:
                write_text(path, json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _without_origin(saved: Any) -> Any:
    """Return what was saved without the folders and files that a model, or one within it, was loaded from."""
    if isinstance(saved, dict):
        return {key: _without_origin(value) for key, value in saved.items() if not _ORIGIN.search(key)}
    return [_without_origin(item) for item in saved] if isinstance(saved, list) else saved


@contextmanager
def plain_errors(model: str | Path, file: str = "") -> Iterator[None]:
    """Turn what transformers and safetensors raise for a model, of whatever type, into a ModelError in plain words.

    The message names ``file``, where the model's folder has it.
    """
    try:
        with quick(model):
            yield
    except CompressError:
        raise
    except Exception as e:
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        if "trust_remote_code" in str(e):
            first = "it ships its own code. If you trust it, set trust_remote_code=true beside it (teacher., student.)"
        elif _UNKNOWN_TYPE.search(first):
            first = (
                "its model_type is missing, or is none that transformers knows. If you know what it is, say so for a "
                f"teacher: teacher.family=bert, or another of {', '.join(FAMILIES)}"
            )
        elif not Path(model).exists():
            remedy = meant_path(str(model)).rstrip("?")
            remedy = remedy or "Check the spelling, or the network, or name a folder written by save_pretrained"
            first = f"there is no such folder, and no such model could be fetched from the hub. {remedy}"
        place = Path(model) / file
        raise ModelError(f"{place if file and place.is_file() else model}: cannot be loaded: {first}.") from e
