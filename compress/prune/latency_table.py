"""How long each size of a layer takes: measured in ONNX Runtime on whole models, the sizes alternately."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.isotonic import isotonic_regression
from transformers import PreTrainedModel

from compress.models.auto import from_config
from compress.models.loading import quiet
from compress.onnx.graph import write_onnx
from compress.onnx.sizes import resized
from compress.progress import progress
from compress.prune.costs import Costs, shape_of, widths
from compress.runtimes.onnxruntime import graph_session
from compress.runtimes.timing import Call, time_in_turns
from compress.tasks.base import Array
from compress.train import same_randomness

Measured = TypeVar("Measured", bound=Hashable)

CALLS = 80  # of each size, alternating with the others of its group and with the whole model
SECONDS = 3.0  # busy time after which a slow size needs no more calls
GROUP = 3  # sizes that are loaded at once
LEAST = 0.001  # share of the whole model's time that the layers have at least, whatever noise says


@dataclass(frozen=True)
class Size:
    """A model of ``layers`` equal layers."""

    heads: int
    units: int
    layers: int


def measured_costs(config: Any, names: list[str], tokens: int, threads: int, count: int) -> Costs:
    """Return the table of milliseconds of a row of ``tokens`` tokens, batch 1, for models of a configuration.

    As ZipLM's (arXiv:2302.04089) it holds every number of heads and every width of a layer. Timed are whole models
    with as many layers as the configuration has, all equal: every number of heads at a middle width, every width
    at a middle number of heads, one head at the least width; and one such layer alone, which tells the layers
    from the rest. What heads and units add is made to grow with their number, and scaled so that the whole model
    takes what it took.
    """
    shape = shape_of(config)
    known, most, layers = widths(config, count), max(heads for heads, _ in shape), len(shape)
    middle = Size(-(-most // 2), known[(len(known) - 1) // 2], layers)
    heads = [replace(middle, heads=number) for number in range(1, most + 1)]
    units = [replace(middle, units=width) for width in known]
    smallest, single = Size(1, known[0], layers), Size(1, known[0], 1)

    def graph_of(graph: Any, size: Size) -> Any:
        return resized(graph, config, heads=size.heads, units=size.units, layers=size.layers)

    sizes = list(dict.fromkeys([*heads, *units, smallest, single]))
    times, whole = timed(config, names, tokens, threads, sizes, graph_of)
    # a model of one layer has no shorter one beside it: all its time is the layer's, which is never left out
    layer = (times[smallest] - times[single]) / (layers - 1) if layers > 1 else times[smallest]
    layer = min(max(layer, LEAST * whole / layers), times[smallest] / layers)
    by_heads, by_units = (isotonic_regression(np.array([times[size] for size in sizes])) for sizes in (heads, units))
    found = Costs(
        "ms",
        times[smallest] - layers * layer,
        layer,
        tuple(float(time - by_heads[0]) / layers for time in by_heads),
        tuple((width, float(time - by_units[0]) / layers) for width, time in zip(known, by_units, strict=True)),
    )
    added = found.of(shape) - times[smallest]
    return found.with_sizes_scaled(max(whole - times[smallest], LEAST * whole) / added) if added > 0 else found


def timed(
    config: Any,
    names: list[str],
    tokens: int,
    threads: int,
    sizes: list[Measured],
    graph_of: Callable[[Any, Measured], Any],
) -> tuple[dict[Measured, float], float]:
    """Return the milliseconds of each size and of the whole model, of a row of ``tokens`` tokens, batch 1.

    ``graph_of(graph, size)`` is the whole model's graph in a size. A size's time is its ratio to the whole model,
    called in the same turns, times what the whole model takes.
    """
    import onnx

    feed = row_of(names, tokens, int(config.vocab_size))
    ratios: dict[Measured, float] = {}
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / "model.onnx"
        write_onnx(_any_weights(config), names, path)
        graph = onnx.load(path)
        runners: dict[Any, Call] = {"whole": graph_session(path, threads)}
        with progress(total=len(sizes), title="latency table", unit="size") as bar:
            for group in _groups(sizes):
                for size in group:
                    runners[size] = graph_session(graph_of(graph, size), threads)
                spent = time_in_turns(runners, {name: [feed] for name in runners}, CALLS, SECONDS, None)
                for size in group:
                    ratios[size] = float(np.median(np.divide(spent[size], spent["whole"])))
                    del runners[size]
                bar.update(len(group))
        last = time_in_turns(runners, {"whole": [feed]}, CALLS, SECONDS, None)
    milliseconds = 1e3 * float(np.median(last["whole"]))
    return {size: ratio * milliseconds for size, ratio in ratios.items()}, milliseconds


def _groups(sizes: list[Measured]) -> Iterator[list[Measured]]:
    for start in range(0, len(sizes), GROUP):
        yield sizes[start : start + GROUP]


def row_of(names: list[str], tokens: int, vocabulary: int) -> dict[str, Array]:
    """Return the inputs of a row of ``tokens`` tokens."""
    numbers = np.arange(tokens, dtype=np.int64)[None] % vocabulary
    known = {"input_ids": numbers, "attention_mask": np.ones_like(numbers)}
    return {name: known.get(name, np.zeros_like(numbers)) for name in names}


def _any_weights(config: Any) -> PreTrainedModel:
    """Return a model of this configuration in which no two weights are equal, so that none are stored once."""
    with same_randomness(), quiet():
        torch.manual_seed(0)
        model = from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.02)
    return model
