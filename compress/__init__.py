"""Make BERT-sized models small and fast: distil, prune, quantize, export, and report honestly.

    from compress import Bert, PruneHeads, Recipe, Teacher

    run = Recipe(data="train.tsv", teacher=Teacher(model="my/teacher"), prune={"heads": PruneHeads()}).run()
    run.predict(["a text"])

Names are imported when they are used, so that ``import compress`` costs next to nothing.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from compress.auto_classes import announce as _announce

if TYPE_CHECKING:
    from compress.benchmark.stage import Benchmark
    from compress.data.files import Files
    from compress.data.hub import Hub
    from compress.distill.losses import AttentionScores, HardLabels, HiddenStates, SoftTargets
    from compress.distill.stage import Distill
    from compress.errors import CompressError, RecipeError
    from compress.export.onnx import Onnx
    from compress.prune.heads import PruneHeads
    from compress.prune.layers import PruneLayers
    from compress.prune.neurons import PruneNeurons
    from compress.prune.vocabulary import PruneVocabulary
    from compress.quantize.half import HalfPrecision
    from compress.quantize.int8 import DynamicInt8, StaticInt8
    from compress.run.predict import predict
    from compress.run.recipe import Recipe
    from compress.run.result import Run, load
    from compress.student.bert import Bert
    from compress.student.saved import Saved
    from compress.teachers.model import Teacher

__version__ = "0.1.0"

_PLACES = {
    "AttentionScores": "distill.losses:AttentionScores",
    "Benchmark": "benchmark.stage:Benchmark",
    "Bert": "student.bert:Bert",
    "CompressError": "errors:CompressError",
    "Distill": "distill.stage:Distill",
    "DynamicInt8": "quantize.int8:DynamicInt8",
    "Files": "data.files:Files",
    "HalfPrecision": "quantize.half:HalfPrecision",
    "HardLabels": "distill.losses:HardLabels",
    "HiddenStates": "distill.losses:HiddenStates",
    "Hub": "data.hub:Hub",
    "Onnx": "export.onnx:Onnx",
    "PruneHeads": "prune.heads:PruneHeads",
    "PruneLayers": "prune.layers:PruneLayers",
    "PruneNeurons": "prune.neurons:PruneNeurons",
    "PruneVocabulary": "prune.vocabulary:PruneVocabulary",
    "Recipe": "run.recipe:Recipe",
    "RecipeError": "errors:RecipeError",
    "Run": "run.result:Run",
    "Saved": "student.saved:Saved",
    "SoftTargets": "distill.losses:SoftTargets",
    "StaticInt8": "quantize.int8:StaticInt8",
    "Teacher": "teachers.model:Teacher",
    "load": "run.result:load",
    "predict": "run.predict:predict",
}

__all__ = [  # as they are listed above
    "AttentionScores", "Benchmark", "Bert", "CompressError", "Distill", "DynamicInt8", "Files", "HalfPrecision",
    "HardLabels", "HiddenStates", "Hub", "Onnx", "PruneHeads", "PruneLayers", "PruneNeurons", "PruneVocabulary",
    "Recipe", "RecipeError", "Run", "Saved", "SoftTargets", "StaticInt8", "Teacher", "load", "predict",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    value = getattr(_import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})


_announce()
