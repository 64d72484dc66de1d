"""What a recipe can choose by name, and the settings that each choice brings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args, get_origin

from compress.augment.perturb import Perturb
from compress.augment.substitute import Substitute
from compress.data import Files, Hub, Tweets
from compress.data.hub import PRESETS
from compress.describe import hints
from compress.distill.dual import Dual
from compress.distill.general import General
from compress.distill.layers import Layers
from compress.distill.losses import LOSSES
from compress.distill.masked_lm import MaskedLM
from compress.distill.multi_task import MultiTask
from compress.distill.progressive import Progressive
from compress.distill.theseus import Theseus
from compress.export.onnx import Onnx
from compress.export.tensorrt import TensorRt
from compress.export.transformers_js import TransformersJs
from compress.export.triton import Triton
from compress.prune.budget import Budget
from compress.prune.heads import PruneHeads
from compress.prune.layers import PruneLayers
from compress.prune.neurons import PruneNeurons
from compress.prune.vocabulary import PruneVocabulary
from compress.prune.weights import PruneWeights
from compress.prune.width import PruneWidth
from compress.quantize.bitsandbytes import BitsAndBytes
from compress.quantize.groups import GroupWise
from compress.quantize.half import HalfPrecision
from compress.quantize.int8 import DynamicInt8, StaticInt8
from compress.quantize.qat import QuantizationAware
from compress.quantize.symmetric import SymmetricInt8
from compress.run.recipe import Recipe
from compress.settings import Settings
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.student.mobile import Mobile
from compress.student.saved import Saved
from compress.student.shared import Shared

Option = type[Settings] | Settings

GROUPS: Mapping[str, Mapping[str, Option]] = {
    "data": {
        "tweets": Tweets,
        "files": Files,
        "hub": Hub,
        **{name: Hub(**preset) for name, preset in PRESETS.items()},  # type: ignore[arg-type]
    },
    "augment": {"perturb": Perturb, "substitute": Substitute},
    "student": {"bert": Bert, "bilstm": BiLstm, "cnn": Cnn, "mobile": Mobile, "shared": Shared, "saved": Saved},
    "prepare": {
        "general": General,
        "masked_lm": MaskedLM,
        "dual": Dual,
        "layers": Layers,
        "progressive": Progressive,
        "theseus": Theseus,
        "multi_task": MultiTask,
    },
    "distill/losses": LOSSES,
    "prune": {
        "heads": PruneHeads,
        "neurons": PruneNeurons,
        "layers": PruneLayers,
        "width": PruneWidth,
        "vocabulary": PruneVocabulary,
        "weights": PruneWeights,
        "budget": Budget,
    },
    "quantize": {
        "dynamic": DynamicInt8,
        "static": StaticInt8,
        "symmetric": SymmetricInt8,
        "groups": GroupWise,
        "fp16": HalfPrecision,
        "qat": QuantizationAware,
        "bitsandbytes": BitsAndBytes,
    },
    "export": {"onnx": Onnx, "tensorrt": TensorRt, "triton": Triton, "transformers_js": TransformersJs},
}
"""Group to option to settings; the only place where names are bound: ``student=bert``, ``prune=[heads]``."""


def slot(recipe: Any, group: str) -> Any:
    """Return what a recipe holds for a group: one part, or a dictionary of parts."""
    for name in group.split("/"):
        recipe = getattr(recipe, name)
    return recipe


def option_of(group: str, part: Settings) -> str | None:
    """Return the option that makes parts of this class; None for a class that only Python knows."""
    return next((name for name, option in GROUPS[group].items() if option is type(part)), None)


DEFAULTS: Mapping[str, Any] = {
    group: [option_of(group, part) for part in held.values()] if isinstance(held, Mapping) else option_of(group, held)
    for group, held in ((group, slot(Recipe(), group)) for group in GROUPS)
}
"""What a recipe has when it does not choose: an option, or a list of them where a group takes several."""

SEVERAL = frozenset(group for group, chosen in DEFAULTS.items() if isinstance(chosen, list))
"""Groups that take a list of options."""


def is_open(keys: Sequence[str]) -> bool:
    """Return whether the keys below a setting, given by its path, are the user's own texts, as of ``data.labels``."""
    return any(
        len(path) == len(keys) and all(known in {"*", key} for known, key in zip(path, keys, strict=True))
        for path in _open_settings()
    )


@cache
def _open_settings() -> frozenset[tuple[str, ...]]:
    """Return the paths of the settings whose keys are free; ``*`` stands for any name."""
    return frozenset(
        path
        for group, options in GROUPS.items()
        for option in options.values()
        for path in _open_below(
            option if isinstance(option, type) else type(option), (*group.split("/"), *["*"] * (group in SEVERAL))
        )
    )


def _open_below(kind: type[Settings], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for field in fields(kind):
        hint, path = hints(kind)[field.name], (*above, field.name)
        if field.metadata.get("open"):
            yield path
        if get_origin(hint) is dict:
            hint, path = get_args(hint)[1], (*path, "*")
        if isinstance(hint, type) and issubclass(hint, Settings):
            yield from _open_below(hint, path)


def guess(word: str, known: Iterable[str]) -> str:
    """Return a sentence that names the known word nearest to ``word``, or all of them."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1, cutoff=0.7)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}." if known else ""
