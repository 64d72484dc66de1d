"""A model's weights against its architecture: none dropped, none made up, none of another shape, all numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, PreTrainedModel

from compress.errors import ModelError
from compress.models.architecture import ships_code
from compress.models.quiet import quiet

Finding = Mapping[str, Any]
"""What transformers says of weights that it loaded (``output_loading_info``): missing, unexpected, mismatched."""

_LOSS = re.compile(r"(?:^|[._])(?:bce|ce|mse|nll|focal|\w*entropy)?(?:loss|criterion)", re.IGNORECASE)
_WHOLE = ("I64", "I32", "I16")  # as safetensors names them; 8 bits may be quantized weights
_checked: set[tuple[object, ...]] = set()


def check_files(model: str | Path, config: Any, load: Any) -> None:
    """Raise ModelError where a folder's encoder is not what its configuration says, or its weights are not finite.

    ``load()`` gives the model without values, and the `Finding`. The head may be missing: it may be trained yet. A
    folder is looked at once while its files stay as they are. A hub id that is not in the cache is not fetched for it.
    """
    folder = local_folder(model)
    if folder is None:
        return
    files = [*folder.glob("*.safetensors"), folder / "config.json"]
    stats = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(files)]
    key = (str(folder.absolute()), *stats)
    if key in _checked:
        return
    if getattr(config, "quantization_config", None) is None:
        loaded, finding = load()
        check_finding(model, loaded, finding, trained=False)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            check_finite(model, ((name, file.get_tensor(name)) for name in names))
    _checked.add(key)


def local_folder(model: str | Path) -> Path | None:
    """Return the folder with a model's weights: its own, or that of a hub id in the cache; None where it has none."""
    if Path(model).is_dir():
        return Path(model)
    found = try_to_load_from_cache(str(model), "model.safetensors")
    return Path(found).parent if isinstance(found, str) else None


def check_finding(model: str | Path, loaded: PreTrainedModel, finding: Finding, *, trained: bool) -> None:
    """Raise ModelError where weights that the architecture needs are missing, left over, or of another shape.

    With ``trained`` the head must be there too. Otherwise it is trained again, and a head and a pooler that are
    missing, of another shape or of another task do not matter. Nor do leftover weights of classes in a loss, and
    leftover buffers of whole numbers (numbers of positions or types): no answer depends on them.
    """
    saved = f"Save it again with save_pretrained, as {type(loaded).__name__}."
    body = _body_names(loaded)
    missing = [name for name in finding["missing_keys"] if trained or (_is_body(name, body) and ".pooler." not in name)]
    if missing:
        raise ModelError(
            f"{model}: its weights lack {_first(missing)}, which its config.json says that it has. {saved}"
        )
    shapes = {name: (found, wanted) for name, found, wanted in finding["mismatched_keys"] or ()}
    wrong = [name for name in shapes if trained or _is_body(name, body)]
    if wrong:
        found, wanted = (_said(shape) for shape in shapes[min(wrong)])
        raise ModelError(
            f"{model}: {_first(wrong)}: the weights have the shape {found}, and by config.json it is {wanted}. {saved}"
        )
    others = None
    left: list[str] = []
    for name in sorted(finding["unexpected_keys"] or ()):
        if _is_pooler(name) or _LOSS.search(name):
            continue  # of the encoder's own task: classifiers without one never read it; of training alone
        if not _is_body(name, body):
            others = _other_heads(loaded) if others is None else others
            if not trained or name.partition(".")[0] in others:
                continue
        left.append(name)
    left = _without_whole_numbers(model, left)
    if left:
        raise ModelError(
            f"{model}: its weights hold {_first(left)}, which a model of type {loaded.config.model_type} does not take"
            f"{_reason(left)}: without it the model answers otherwise. "
            "Name a model that transformers 5 supports in full."
        )


def check_quantized(model: str | Path, loaded: PreTrainedModel) -> None:
    """Raise ModelError where layers that bitsandbytes is to multiply hold weights that were never quantized."""
    layers = ((name, module) for name, module in loaded.named_modules() if isinstance(module, nn.Linear))
    plain = [
        name
        for name, module in layers
        if type(module).__module__.startswith("bitsandbytes") and type(module.weight) is nn.Parameter
    ]
    if plain:
        raise ModelError(
            f"{model}: quantization_config in its config.json says that weights are quantized, and those of "
            f"{_first(plain)} are not. Remove quantization_config, or name the folder that holds the quantized weights."
        )


def check_finite(model: str | Path, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Raise ModelError with the first weight that is not a number or infinite."""
    for name, value in weights:
        if not value.is_floating_point() or value.is_meta or value.element_size() == 1:
            continue  # 8 bits: quantized, whose kinds of floats know no infinity
        if not torch.isfinite(value.sum(dtype=torch.float32)) and (count := int((~torch.isfinite(value)).sum())):
            raise ModelError(
                f"{model}: its weights are not finite: {name} has {count:,} of {value.numel():,} values NaN or "
                "infinite. Name another checkpoint, or train it again with a lower learning rate."
            )


def _body_names(loaded: PreTrainedModel) -> set[str]:
    """Return the first parts of the names of an encoder's weights, saved in a classifier or alone."""
    if loaded.base_model is loaded:
        return set()
    return {loaded.base_model_prefix, *(name for name, _ in loaded.base_model.named_children())}


def _without_whole_numbers(model: str | Path, names: list[str]) -> list[str]:
    """Return the names, of a model's folder, whose tensors do not hold whole numbers."""
    folder = local_folder(model) if names else None
    whole: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")) if folder is not None else ():
        with safe_open(path, framework="pt") as file:
            held = file.keys()
            whole |= {name for name in names if name in held and file.get_slice(name).get_dtype() in _WHOLE}
    return [name for name in names if name not in whole]


def _is_body(name: str, body: set[str]) -> bool:
    return name.partition(".")[0] in body


def _is_pooler(name: str) -> bool:
    return "pooler" in name.split(".")[:2]


def _other_heads(loaded: PreTrainedModel) -> set[str]:
    """Return the first parts of the names that heads for masked words and other pretraining have in this type."""
    found: set[str] = set()
    autos: tuple[Any, ...] = () if ships_code(loaded.config) else (AutoModelForMaskedLM, AutoModelForPreTraining)
    for auto in autos:
        if type(loaded.config) in auto._model_mapping:
            with torch.device("meta"), quiet():
                head = auto.from_config(loaded.config)
            found |= {name for name, _ in head.named_children()}
    own = {name for name, _ in loaded.named_children()}
    return found - own


def _reason(names: Iterable[str]) -> str:
    """Return why transformers 5 has no place for weights that versions before it saved, as a clause."""
    if any("distance_embedding" in name for name in names):
        return " (position_embedding_type = relative_key or relative_key_query, which transformers 5 no longer has)"
    if any("crossattention" in name for name in names):
        return " (add_cross_attention, of a decoder)"
    if any("lora_" in name for name in names):
        return " (adapters that were not merged: call merge_and_unload() in peft)"
    return ""


def _first(names: Iterable[str]) -> str:
    """Return the first name, and how many more there are."""
    first, *more = sorted(names)
    return f"{first} and {len(more)} more" if more else first


def _said(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape)) or "one number"
