"""The files of a model's folder, looked at before transformers reads them: present, whole and of the right kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from compress.errors import ModelError
from compress.files import no_folder
from compress.tasks.heads import counts_outputs

CONFIG, ADAPTER, INDEX = "config.json", "adapter_config.json", "model.safetensors.index.json"
FACTS = "compress"  # the entry of config.json that says how an artifact is used; see `compress.models.facts`
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
PIECES = (
    "spiece.model", "spm.model", "sentencepiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
VOCABULARIES = (TOKENIZER, "vocab.txt", "vocab.json", *PIECES)
_OBJECTS = (TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.json")
_MOST_LAYERS, _MOST_LABELS, _MOST_POSITIONS, _MOST = 1024, 2**20, 2**24, 2**40
_SIZE = re.compile(
    "^(?:num|n|d)_|(?:^|_)(?:size|dim|layers?|heads|hidden|intermediate|positions?|embeddings?|labels|rank)(?:_|$)"
)  # entries of config.json by which something is built
_AGAIN = "Copy the file again, or save the folder again with save_pretrained."


def check_folder(folder: Path, *, weights: bool) -> None:
    """Raise ModelError, which names the file, where a folder cannot hold a model.

    With ``weights`` it must hold safetensors too. Nothing larger than JSON and the weights' headers is read.
    """
    if rule := no_folder(folder):
        if folder.exists():
            raise ModelError(f"{folder}: {rule}. Name the folder that holds config.json and model.safetensors.")
        return  # a hub id, or a name that transformers explains
    if (folder / ADAPTER).is_file():
        raise ModelError(
            f"{folder}: holds adapters ({ADAPTER}), which are not merged into the weights. "
            "Call model.merge_and_unload() in peft and save what it returns with save_pretrained."
        )
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder}: has no config.json. Name a folder written by transformers' save_pretrained.")
    _check_config(folder / CONFIG)
    if weights:
        _check_weights(folder)


def check_tokenizer_files(folder: Path) -> None:
    """Raise ModelError, which names the file, where a folder's tokenizer cannot be read."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(f"{folder}: has no tokenizer. Save it beside the model: tokenizer.save_pretrained(folder).")
    for name in _OBJECTS:
        if (folder / name).is_file():
            read_object(folder / name)
    words = folder / "vocab.txt"
    if words.is_file() and not _text(words).strip():
        _refuse(words, "is empty")
    path = folder / TOKENIZER
    if path.is_file():
        tokenizer = with_refusal(path, Tokenizer.from_file, str(path))
        _check_template(path)
        with_refusal(path, tokenizer.encode, "a", "b")


def only_pieces(folder: Path) -> str:
    """Return the file of sentencepiece that a folder has in place of a tokenizer in text; "" where it has one."""
    held = [name for name in VOCABULARIES if (folder / name).is_file()]
    return held[0] if held and held[0] in PIECES else ""


def read_object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; raises ModelError for anything else."""
    try:
        value = json.loads(
            _text(path), parse_constant=lambda word: _refuse(path, f"holds {word}, which is not a number")
        )
    except (json.JSONDecodeError, RecursionError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        _refuse(path, f"cannot be loaded: it is not JSON{where}")
    if not isinstance(value, dict):
        _refuse(path, f"must hold a JSON object and holds {_kind(value)}")
    return value


def with_refusal(path: Path, read: Any, *given: Any) -> Any:
    """Return ``read(*given)``; whatever it raises becomes a ModelError that names ``path``.

    The tokenizers package raises plain Exceptions, and panics that are not Exceptions.
    """
    try:
        return read(*given)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(f"{path}: cannot be read: {first}. {_AGAIN}") from error


def _check_template(path: Path) -> None:
    """Raise ModelError where a valid file gives rows special tokens that are not defined: tokenizers panics there."""
    processor = read_object(path).get("post_processor")
    for part in processor.get("processors", [processor]) if processor else ():
        if part["type"] != "TemplateProcessing":
            continue
        for piece in (*part["single"], *part["pair"]):
            token = piece.get("SpecialToken")
            if token and token["id"] not in part["special_tokens"]:
                _refuse(path, f"post_processor adds {token['id']!r}, which is not among its special_tokens")


def _check_config(path: Path) -> None:
    """Raise ModelError where config.json has what transformers cannot read, or would build without end."""
    for name, value in read_object(path).items():
        if name == "quantization_config" and value is not None and not isinstance(value, dict):
            _refuse(path, f"quantization_config must be a JSON object and is {_kind(value)}")
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        if "layers" in name and not 0 <= value <= _MOST_LAYERS:
            _refuse(path, f"{name} = {value} must lie between 0 and {_MOST_LAYERS}")
        if counts_outputs(name) and not 1 <= value <= _MOST_LABELS:
            _refuse(path, f"{name} = {value} must lie between 1 and {_MOST_LABELS}")
        if "position" in name and value > _MOST_POSITIONS:
            _refuse(path, f"{name} = {value} must be at most {_MOST_POSITIONS}")
        if _SIZE.search(name) and abs(value) > _MOST:
            _refuse(path, f"{name} = {value} is too large for any model")


def _check_weights(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        has = "only pickled weights, which are never loaded" if any(folder.glob("*.bin")) else "no weights"
        raise ModelError(f"{folder}: has {has}. Save it again with save_pretrained, which writes model.safetensors.")
    index = folder / INDEX
    if index.is_file():
        parts = read_object(index).get("weight_map")
        if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts.values()):
            _refuse(index, "must name a file for each weight under weight_map")
        for name in sorted(set(parts.values())):
            if Path(name).name != name or not (folder / name).is_file():
                _refuse(index, f"names {name}, which is not in the folder")
        held = {name: set(_tensors(folder / name)) for name in set(parts.values())}
        for weight, name in parts.items():
            if weight not in held[name]:
                _refuse(index, f"says that {name} holds {weight}, and it does not")
    for path in files:
        if not _tensors(path):
            _refuse(path, "holds no weights")


def _tensors(path: Path) -> list[str]:
    """Return the names of a file's weights; raises ModelError where it was cut short or is of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        _refuse(path, f"cannot be loaded: {str(error).splitlines()[0].rstrip('.')}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        _refuse(path, "is not text in UTF-8")
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror}")


def _kind(value: object) -> str:
    kinds: Iterable[tuple[type, str]] = ((list, "a list"), (str, "text"), (bool, "true or false"), (type(None), "null"))
    return next((words for kind, words in kinds if isinstance(value, kind)), "a number")


def _refuse(path: Path, rule: str) -> NoReturn:
    raise ModelError(f"{path}: {rule}. {_AGAIN}")
