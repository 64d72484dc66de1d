"""Load and save models as transformers folders: safetensors only, no pickle, no remote code unasked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from compress.errors import CompressError, ModelError
from compress.files import hash_folder
from compress.models.architecture import check_architecture, check_features
from compress.models.folder import CONFIG, TOKENIZER_CONFIG, check_folder, check_tokenizer_files
from compress.models.pruned_heads import with_pruned_heads
from compress.models.quiet import quiet as quiet  # noqa: PLC0414  # most take it from here
from compress.models.shipped import ship, without_shipped
from compress.models.tokenizer import fit_tokenizer, save_tokenizer
from compress.models.weights import Finding, check_files, check_finding, check_finite, local_folder


def load_config(model: str | Path, *, trust_remote_code: bool = False, weights: bool = True) -> Any:
    """Return the configuration of a folder or hub id; raises ModelError in plain words.

    A folder must hold weights too, all that the encoder needs and none beside, unless ``weights`` is off.
    """
    config = _config(model, trust_remote_code=trust_remote_code, weights=weights)
    if weights:
        with plain_errors(_named(model, CONFIG)):  # the weights' own files were read by now
            check_files(model, config, lambda: _without_values(model, config, trust_remote_code))
        check_features(model, config)
    return config


def check_trained(model: str | Path, config: Any, *, trust_remote_code: bool = False) -> None:
    """Raise ModelError where weights on this machine are not those of a whole classifier, its head included."""
    if local_folder(model) is not None and getattr(config, "quantization_config", None) is None:
        with plain_errors(_named(model, CONFIG)):
            check_finding(model, *_without_values(model, config, trust_remote_code), trained=True)


def _without_values(model: str | Path, config: Any, trust_remote_code: bool) -> tuple[PreTrainedModel, Finding]:
    """Return a classifier without values, and what its weights would lack: only their names and shapes are read."""
    return _from_pretrained(model, config, trust_remote_code, device_map={"": "meta"})


def _config(model: str | Path, *, trust_remote_code: bool, weights: bool) -> Any:
    """Return the configuration, of an architecture that can be built; the weights are not compared with it."""
    check_folder(Path(model), weights=weights)
    with plain_errors(_named(model, CONFIG)), quiet():
        config = without_shipped(AutoConfig.from_pretrained(str(model), trust_remote_code=trust_remote_code))
        if weights:
            check_architecture(model, config, trust_remote_code=trust_remote_code)
        return with_pruned_heads(model, config)


def _named(model: str | Path, file: str) -> str | Path:
    """Return a file of a model's folder, which is what a message should name; a hub id as it is."""
    path = Path(model) / file
    return path if path.is_file() else model


def _from_pretrained(
    model: str | Path, config: Any, trust_remote_code: bool, **settings: Any
) -> tuple[PreTrainedModel, Finding]:
    with quiet():
        loaded: tuple[PreTrainedModel, Finding] = AutoModelForSequenceClassification.from_pretrained(
            str(model),
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            dtype="float32",
            ignore_mismatched_sizes=True,  # they are looked at afterwards, and named
            config=config,
            output_loading_info=True,
            **settings,
        )
    return loaded


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
    for name, value in sorted((head or {}).items(), reverse=True):  # num_labels would overwrite the labels' names
        setattr(config, name, value)
    with plain_errors(model):
        loaded, finding = _from_pretrained(
            model, config, trust_remote_code, device_map={"": on or torch.device("cpu")} if quantized else None
        )
    if not quantized:
        check_finding(model, loaded, finding, trained=trained)
        check_finite(model, loaded.named_parameters())
        nn.Module.to(loaded, on)
    check_features(model, config)
    loaded.eval()
    return loaded


def without_values(config: Any) -> PreTrainedModel:
    """Return a classifier of a configuration whose parameters have shapes and no values."""
    with torch.device("meta"), quiet():
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return model


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
    if folder.is_dir():
        check_tokenizer_files(folder)
    with plain_errors(_named(model, TOKENIZER_CONFIG)), quiet():
        tokenizer = AutoTokenizer.from_pretrained(str(model), trust_remote_code=trust_remote_code)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{model}: has no fast tokenizer (tokenizer.json), which export and training need.")
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{model}: its tokenizer has no padding token. Set pad_token in tokenizer_config.json.")
    if not folder.is_dir() or (folder / CONFIG).is_file():
        with plain_errors(_named(model, TOKENIZER_CONFIG)):
            fit_tokenizer(model, tokenizer, _config(model, trust_remote_code=trust_remote_code, weights=False))
    return tokenizer


def save_model(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer; beside a model type of ours its code, see `ship`."""
    with quiet():
        model.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
    ship(model, folder)


@contextmanager
def plain_errors(model: str | Path) -> Iterator[None]:
    """Turn what transformers and safetensors raise for a model, of whatever type, into a ModelError in plain words."""
    try:
        yield
    except CompressError:
        raise
    except Exception as e:
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        if "trust_remote_code" in str(e):
            first = "it ships its own code. If you trust it, set trust_remote_code=true beside it (teacher., student.)"
        elif not Path(model).exists():
            first = (
                "there is no such folder, and no such model could be fetched from the hub. "
                "Check the spelling, or the network, or name a folder written by save_pretrained"
            )
        raise ModelError(f"{model}: cannot be loaded: {first}.") from e
