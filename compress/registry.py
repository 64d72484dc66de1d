"""What a recipe can choose by name. Listing the names imports nothing; an option's module is imported when it is used.

To add an option, add a line here. Code outside this package calls `register`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import import_module
from typing import Any, get_args, get_origin

from compress.describe import hints
from compress.settings import Settings

Option = type[Settings] | Settings
"""The settings that an option brings: a class, or an object with some of them set."""

HUB_SETS = ("sst2", "cola", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli", "imdb", "ag_news")


class Options(Mapping[str, Option]):
    """The options of one group by name, given as ``module:name`` or ``module:mapping.key``."""

    def __init__(self, targets: Mapping[str, str] | None = None, *, several: bool = False, shared: str = "") -> None:
        """Take ``targets``, or the mapping that ``shared`` names, where other modules register their options.

        ``several``: a recipe takes a list of them.
        """
        self.several = several
        self._targets: dict[str, str | Option] = dict(targets or {})
        self.shared = shared

    def __getitem__(self, name: str) -> Option:
        option = self._named[name]
        return loaded(option) if isinstance(option, str) else option

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    @property
    def _named(self) -> Mapping[str, str | Option]:
        return loaded(self.shared) if self.shared else self._targets

    def add(self, name: str, option: str | Option) -> None:
        """Add an option. Raises ValueError where the name stands for another."""
        named: Any = self._named
        if named.setdefault(name, option) != option:
            raise ValueError(f"there is an option {name!r} already: {named[name]}")

    def name_of(self, part: Settings) -> str | None:
        """Return the option that makes parts of this class; None for a class that only Python knows."""
        return next((name for name, option in self.items() if option is type(part)), None)


def loaded(target: str) -> Any:
    """Return what ``module:name`` or ``module:mapping.key`` names."""
    module, _, path = target.partition(":")
    name, _, key = path.partition(".")
    value = getattr(import_module(module), name)
    return value[key] if key else value


GROUPS: Mapping[str, Options] = {
    "data": Options(
        {
            "tweets": "compress.data.tweets:Tweets",
            "files": "compress.data.files:Files",
            "hub": "compress.data.hub:Hub",
            **{name: f"compress.data.presets:PRESETS.{name}" for name in HUB_SETS},
        }
    ),
    "task": Options(shared="compress.tasks.registry:CHOICES"),
    "teacher": Options(
        {
            "model": "compress.teachers.model:Teacher",
            "answers": "compress.teachers.answers:AnswerFile",
            "endpoint": "compress.teachers.endpoint:Endpoint",
        }
    ),
    "augment": Options(
        {"perturb": "compress.augment.perturb:Perturb", "substitute": "compress.augment.substitute:Substitute"},
        several=True,
    ),
    "student": Options(
        {
            "bert": "compress.student.bert:Bert",
            "bilstm": "compress.student.bilstm:BiLstm",
            "cnn": "compress.student.cnn:Cnn",
            "static": "compress.student.static:Static",
            "mobile": "compress.student.mobile:Mobile",
            "shared": "compress.student.shared:Shared",
            "saved": "compress.student.saved:Saved",
        }
    ),
    "prepare": Options(
        {
            "general": "compress.distill.general:General",
            "masked_lm": "compress.distill.masked_lm:MaskedLM",
            "dual": "compress.distill.dual:Dual",
            "layers": "compress.distill.layers:Layers",
            "progressive": "compress.distill.progressive:Progressive",
            "theseus": "compress.distill.theseus:Theseus",
            "multi_task": "compress.distill.multi_task:MultiTask",
            "simcse": "compress.distill.simcse:SimCse",
            "stream": "compress.distill.stream:Stream",
            "shape": "compress.prune.shape:PruneToShape",
            "width": "compress.prune.width:PruneWidth",
            "vocabulary": "compress.prune.vocabulary:PruneVocabulary",
        },
        several=True,
    ),
    "distill/losses": Options(shared="compress.distill.losses:LOSSES", several=True),
    "prune": Options(
        {
            "heads": "compress.prune.heads:PruneHeads",
            "neurons": "compress.prune.neurons:PruneNeurons",
            "layers": "compress.prune.layers:PruneLayers",
            "width": "compress.prune.width:PruneWidth",
            "vocabulary": "compress.prune.vocabulary:PruneVocabulary",
            "whitening": "compress.prune.whitening:Whitening",
            "weights": "compress.prune.weights:PruneWeights",
            "budget": "compress.prune.budget:Budget",
            "rank": "compress.prune.rank:PruneRank",
            "shape": "compress.prune.shape:PruneToShape",
        },
        several=True,
    ),
    "quantize": Options(
        {
            "dynamic": "compress.quantize.int8:DynamicInt8",
            "static": "compress.quantize.int8:StaticInt8",
            "symmetric": "compress.quantize.symmetric:SymmetricInt8",
            "groups": "compress.quantize.groups:GroupWise",
            "fp16": "compress.quantize.half:HalfPrecision",
            "qat": "compress.quantize.qat:QuantizationAware",
            "bitsandbytes": "compress.quantize.bitsandbytes:BitsAndBytes",
        },
        several=True,
    ),
    "export": Options(
        {
            "onnx": "compress.export.onnx:Onnx",
            "tensorrt": "compress.export.tensorrt:TensorRt",
            "triton": "compress.export.triton:Triton",
            "transformers_js": "compress.export.transformers_js:TransformersJs",
        },
        several=True,
    ),
    "exit": Options(
        {"patience": "compress.exits.stage:PatienceExit", "entropy": "compress.exits.stage:EntropyExit"},
        several=True,
    ),
}
"""Group to options: ``student=bert``, ``prune=[heads]``."""

SEVERAL = frozenset(group for group, options in GROUPS.items() if options.several)
"""Groups that take a list of options."""


def register(group: str, name: str, option: str | Option) -> None:
    """Make an option known: its settings class, or ``module:Class`` to import it when it is used.

    Raises ValueError for an unknown group, and where the name stands for another option.
    """
    if group not in GROUPS:
        raise ValueError(f"there is no group {group!r}, only {', '.join(GROUPS)}")
    GROUPS[group].add(name, option)


def registered() -> tuple[tuple[str, str], ...]:
    """Return group and name of every option that there is at this moment."""
    return tuple((group, name) for group, options in GROUPS.items() for name in options)


def slot(recipe: Any, group: str) -> Any:
    """Return what a recipe holds for a group: one part, or a dictionary of parts."""
    for name in group.split("/"):
        recipe = getattr(recipe, name)
    return recipe


def is_open(keys: Sequence[str]) -> bool:
    """Return whether the keys below a setting, given by its path, are the user's own texts, as of ``data.labels``."""
    return any(
        len(path) == len(keys) and all(known in {"*", key} for known, key in zip(path, keys, strict=True))
        for path in _open_settings(registered())
    )


@cache
def _open_settings(options: tuple[tuple[str, str], ...]) -> frozenset[tuple[str, ...]]:
    """Return the paths of the settings whose keys are free; ``*`` stands for any name."""
    parts = ((group, GROUPS[group][name]) for group, name in options)
    return frozenset(
        path
        for group, part in parts
        for path in _open_below(
            part if isinstance(part, type) else type(part), (*group.split("/"), *["*"] * (group in SEVERAL))
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
