"""Load and save models as transformers folders: safetensors only, no pickle, no remote code unasked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from compress.errors import ModelError
from compress.files import hash_folder
from compress.models.quiet import quiet as quiet  # noqa: PLC0414  # most take it from here
from compress.models.shipped import ship, without_shipped

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


def load_config(model: str | Path, *, trust_remote_code: bool = False, weights: bool = True) -> Any:
    """Return the configuration of a folder or hub id; raises ModelError in plain words.

    A folder must hold weights too, unless ``weights`` is off.
    """
    folder = Path(model)
    _must_be_readable(folder)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: has no config.json. Name a folder written by transformers' save_pretrained.")
    if weights and folder.is_dir() and not any(folder.glob("*.safetensors")):
        has = "only pickled weights, which are never loaded" if any(folder.glob("*.bin")) else "no weights"
        raise ModelError(f"{folder}: has {has}. Save it again with save_pretrained, which writes model.safetensors.")
    if folder.is_file():
        raise ModelError(f"{folder}: is a file. Name the folder that holds config.json and model.safetensors.")
    with plain_errors(model), quiet():
        for path in folder.glob("*.safetensors") if weights else ():
            with safe_open(path, framework="pt"):
                pass  # reads the header, which a file cut short or of another kind fails
        return without_shipped(AutoConfig.from_pretrained(str(model), trust_remote_code=trust_remote_code))


def _must_be_readable(folder: Path) -> None:
    """Raise ModelError where a pipe, socket or device stands for a folder or in it: to read it could take for ever."""
    for path in folder.iterdir() if folder.is_dir() else (folder,):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"{path}: is no regular file. Name a folder written by transformers' save_pretrained.")


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
    ``head`` is given); else a head and a pooler that they lack start at random. Raises ModelError where they lack more.
    """
    trained = head is None if trained is None else trained
    config = load_config(model, trust_remote_code=trust_remote_code)
    quantized = getattr(config, "quantization_config", None) is not None  # by bitsandbytes, which would take a GPU
    for name, value in sorted((head or {}).items(), reverse=True):  # num_labels would overwrite the labels' names
        setattr(config, name, value)
    with plain_errors(model), quiet():
        loaded, said = AutoModelForSequenceClassification.from_pretrained(
            str(model),
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            dtype="float32",
            ignore_mismatched_sizes=not trained,
            config=config,
            device_map={"": on or torch.device("cpu")} if quantized else None,
            output_loading_info=True,
        )
    _must_hold(model, loaded, said["missing_keys"], trained)
    if not quantized:
        nn.Module.to(loaded, on)
    loaded.eval()
    return cast("PreTrainedModel", loaded)


def _must_hold(model: str | Path, loaded: PreTrainedModel, missing: Iterable[str], trained: bool) -> None:
    """Raise ModelError where weights are missing, which transformers would leave at random without an error."""
    body = f"{loaded.base_model_prefix}."
    lacking = sorted(name for name in missing if trained or (name.startswith(body) and ".pooler." not in name))
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ModelError(
            f"{model}: its weights lack {lacking[0]}{more}, which its config.json says that it has. "
            f"Save it again with save_pretrained, as {type(loaded).__name__}."
        )


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
    config = load_config(model)
    with plain_errors(model), quiet():
        loaded, said = AutoModelForMaskedLM.from_pretrained(
            str(model), use_safetensors=True, dtype="float32", config=config, output_loading_info=True
        )
    if said["missing_keys"]:
        raise ModelError(
            f"{model}: has no trained head of a masked language model. Name one that was trained to fill masks "
            "(its config.json says ForMaskedLM)."
        )
    nn.Module.to(loaded, on)
    loaded.eval()
    return cast("PreTrainedModel", loaded)


def load_tokenizer(model: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Return the fast tokenizer of a folder or hub id; raises ModelError where it has none."""
    folder = Path(model)
    _must_be_readable(folder)
    if folder.is_dir() and not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(f"{folder}: has no tokenizer. Save it beside the model: tokenizer.save_pretrained(folder).")
    with plain_errors(model), quiet():
        tokenizer = AutoTokenizer.from_pretrained(str(model), trust_remote_code=trust_remote_code)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{model}: has no fast tokenizer (tokenizer.json), which export and training need.")
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{model}: its tokenizer has no padding token. Set pad_token in tokenizer_config.json.")
    return tokenizer


def save_model(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer; beside a model type of ours its code, see `ship`."""
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    ship(model, folder)


@contextmanager
def plain_errors(model: str | Path) -> Iterator[None]:
    """Turn what transformers and safetensors raise for a model into a ModelError in plain words."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as e:
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        if "trust_remote_code" in str(e):
            first = "it ships its own code. If you trust it, set trust_remote_code=true beside it (teacher., student.)"
        elif not Path(model).exists():
            first = (
                "there is no such folder, and no such model could be fetched from the hub. "
                "Check the spelling, or the network, or name a folder written by save_pretrained"
            )
        raise ModelError(f"{model}: cannot be loaded: {first}.") from e
