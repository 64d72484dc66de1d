"""Folders of sentence-transformers: what one says of pooling, width and length of vectors, read and written.

Such a folder is one of transformers with the encoder's weights, and beside them ``modules.json`` with what follows the
encoder: a pooling, perhaps a linear layer, perhaps a division by the length.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import cached_file

from compress.errors import ModelError
from compress.families.forms.form import Form
from compress.files import write_text
from compress.hub_access import quick
from compress.models.folder import read_object
from compress.tasks.sentence_vectors import OfSentenceVectors
from compress.tasks.vectors import MODULES

FILE, BERT, SETTINGS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
}  # fmt: skip
_PREFIX = "sentence_transformers.models."
_IDENTITY = "torch.nn.modules.linear.Identity"


def note_modules(config: Any, model: str | Path) -> None:
    """Give a configuration the entry `MODULES`, if a folder or hub id is one of sentence-transformers.

    What cannot be followed is under ``refused``, as a clause. Raises ModelError where a file cannot be read.
    """
    modules = _file(model, FILE)
    if modules is not None:
        setattr(config, MODULES, _told(model, modules, int(config.hidden_size)))


def write_modules(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write the files that make a saved model of sentence vectors a folder that sentence-transformers opens.

    Nothing is written for other models, and for those whose encoder transformers alone cannot build.
    """
    if not isinstance(model, OfSentenceVectors) or isinstance(model, Form):
        return
    config, linear = model.config, model.classifier
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    chosen = {name: pooling == config.vector_pooling for name, pooling in _POOLINGS.items()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": linear.in_features, **chosen})
    if not _is_identity(linear.weight, linear.bias):
        place = folder / "2_Dense"
        _write(
            place / "config.json",
            {
                "in_features": linear.in_features, "out_features": linear.out_features, "bias": True,
                "activation_function": _IDENTITY,
            },
        )  # fmt: skip
        save_file(
            {"linear.weight": linear.weight.detach().contiguous(), "linear.bias": linear.bias.detach().contiguous()},
            place / "model.safetensors",
        )
        modules.append(("2_Dense", "Dense"))
    if config.vector_normalized:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
        (folder / modules[-1][0]).mkdir(exist_ok=True)
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": _PREFIX + kind}
        for number, (path, kind) in enumerate(modules)
    ]
    _write(folder / FILE, entries)
    _write(folder / BERT, {"max_seq_length": int(tokenizer.model_max_length), "do_lower_case": False})
    _write(folder / SETTINGS, {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"})


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(value, indent=2) + "\n")


def _is_identity(weight: Tensor, bias: Tensor) -> bool:
    square = weight.shape[0] == weight.shape[1]
    return square and bool((weight == torch.eye(len(weight), device=weight.device)).all() and (bias == 0).all())


def _told(model: str | Path, path: Path, hidden: int) -> dict[str, Any]:
    """Return what modules.json and the files that it names say."""
    told: dict[str, Any] = {
        "pooling": None, "width": hidden, "normalized": False, "dense": None, "notes": [], "refused": "",
    }  # fmt: skip
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        kinds = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in entries]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as a list of modules: {error}. Copy the file again.") from error
    order = [kind for kind, _ in kinds]
    if order not in _orders():
        return told | {
            "refused": f"has a modules.json with {' → '.join(order)}, and only {_ORDER} can be followed here"
        }
    for kind, place in kinds:
        if kind == "Transformer":
            _of_encoder(model, place, told)
        elif kind == "Pooling":
            _of_pooling(model, place, told)
        elif kind == "Dense":
            settings = _settings(model, f"{place}/config.json")
            if settings.get("activation_function") != _IDENTITY:
                told["refused"] = f"has a Dense module with {settings.get('activation_function')}: only a linear one"
            told |= {"dense": place, "width": int(settings["out_features"])}
        else:
            told["normalized"] = True
    prompts = _settings(model, SETTINGS)
    if prompts.get("default_prompt_name"):
        name = prompts["default_prompt_name"]
        told["refused"] = (
            f"puts the prompt {name!r} before every text ({SETTINGS}): write it into the texts, and set "
            "default_prompt_name to null there"
        )
    elif any((prompts.get("prompts") or {}).values()):
        told["notes"].append(f"its prompts ({', '.join(prompts['prompts'])}) are not put before texts")
    return told


_ORDER = "Transformer → Pooling → Dense → Normalize, of which the last two may be missing,"


def _orders() -> list[list[str]]:
    tails: list[list[str]] = [[], ["Dense"], ["Normalize"], ["Dense", "Normalize"]]
    return [["Transformer", "Pooling", *tail] for tail in tails]


def _of_encoder(model: str | Path, place: str, told: dict[str, Any]) -> None:
    if place:
        told["refused"] = f"has its encoder in the folder {place!r}: name that folder, and task.pooling"
        return
    settings = _settings(model, BERT)
    if settings.get("do_lower_case"):
        told["refused"] = f"lower-cases texts before its tokenizer does ({BERT}): let the tokenizer do it"
    if settings.get("max_seq_length"):
        told["max_tokens"] = int(settings["max_seq_length"])
        told["notes"].append(f"it was made for at most {told['max_tokens']} tokens (max_seq_length)")


def _of_pooling(model: str | Path, place: str, told: dict[str, Any]) -> None:
    settings = _settings(model, f"{place}/config.json")
    modes = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True]
    named = settings.get("pooling_mode")
    modes += [f"pooling_mode_{named}"] if isinstance(named, str) else []
    known = {**_POOLINGS, **{f"pooling_mode_{pooling}": pooling for pooling in _POOLINGS.values()}}
    poolings = {known.get(mode) for mode in modes}
    if len(poolings) != 1 or None in poolings:
        named_modes = ", ".join(modes) or "no pooling_mode"
        told["refused"] = (
            f"pools its tokens by {named_modes} ({place}/config.json), and one of {', '.join(_POOLINGS)} is known"
        )
        return
    told["pooling"] = poolings.pop()


def _settings(model: str | Path, name: str) -> dict[str, Any]:
    path = _file(model, name)
    return {} if path is None else read_object(path)


def _file(model: str | Path, name: str) -> Path | None:
    """Return a file of a folder, or of a hub id from the cache or the hub; None where there is none."""
    if Path(model).is_dir():
        return Path(model) / name if (Path(model) / name).is_file() else None
    with quick(model):
        found = cached_file(
            str(model), name, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
    return None if found is None else Path(found)


def dense_weights(model: str | Path, place: str) -> dict[str, Tensor]:
    """Return the weights of a folder's linear layer; raises ModelError where they are missing."""
    path = _file(model, f"{place}/model.safetensors")
    if path is None:
        raise ModelError(f"{model}: has no {place}/model.safetensors. Save it again with sentence-transformers.")
    weights: dict[str, Tensor] = load_file(path)
    return weights
