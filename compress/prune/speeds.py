"""The latency of students in ONNX Runtime, kept in the cache: the table of a shape, and two of them side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.machine import describe
from compress.models.loading import load_config, load_tokenizer, parameter_shapes
from compress.models.tokens import Tokens, tokenize
from compress.onnx.folder import MODEL, onnx_student
from compress.onnx.graph import input_names
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.prune.costs import Costs
from compress.prune.latency_table import CALLS, SECONDS, measured_costs, row_of
from compress.runtimes.onnxruntime import graph_session
from compress.runtimes.rows import model_inputs
from compress.runtimes.timing import quiet_rows, quiet_turns, time_in_turns

ROWS = 100  # training rows, taken evenly, on which models are timed side by side
PASSES = 5  # over them


def latency_costs(
    state: State, student: Model, threads: int, count: int, length: int | None
) -> tuple[Costs, int, Product]:
    """Return the table of `measured_costs`, and the tokens of its row: ``length``, or the training rows' median."""

    def measure(config: Any, names: list[str], tokens: int) -> dict[str, Any]:
        costs = measured_costs(config, names, tokens, threads, count)
        return {"rest": costs.rest, "layer": costs.layer, "heads": costs.heads, "neurons": costs.neurons}

    tokens, product = latency_table(state, student, Kind("latency_table", revision=1), threads, count, length, measure)
    record = product.record
    neurons = tuple((int(width), float(cost)) for width, cost in record["neurons"])
    return Costs("ms", record["rest"], record["layer"], tuple(record["heads"]), neurons), tokens, product


def latency_table(
    state: State,
    student: Model,
    kind: Kind,
    threads: int,
    count: int,
    length: int | None,
    measure: Callable[[Any, list[str], int], dict[str, Any]],
) -> tuple[int, Product]:
    """Return the tokens of the row that is timed, ``length`` or the training rows' median, and the table.

    ``measure`` makes it of a configuration, the names of a graph's inputs and the tokens; ``count`` is how many sizes
    it has. It is measured once for a machine, its threads, the versions of the runtime, the shape and the length.
    """
    config, tokenizer = load_config(student.folder), load_tokenizer(student.folder)
    tokens, names = length or int(np.median(_tokens(state, tokenizer).lengths)), input_names(tokenizer)
    shapes = {name: list(shape) for name, shape in parameter_shapes(config).items()}
    about = [config.model_type, config.num_attention_heads, shapes, names, tokens, count, CALLS, SECONDS]
    product = state.workshop.make(kind, [describe(threads), about], lambda _: measure(config, names, tokens))
    return tokens, product


def side_by_side(
    state: State, before: Model, after: Model, threads: int, length: int | None
) -> tuple[dict[str, float], Product]:
    """Return the speedup, and the median milliseconds ``before`` and ``after``, of two students called alternately.

    Batch 1, training rows at their real lengths, each one's fastest call of several, and the median ratio of a row;
    or a row of ``length`` tokens in the quiet turns.
    """

    def work(folder: Path) -> dict[str, Any]:
        feeds, runners = {}, {}
        for name, model in {"before": before, "after": after}.items():
            place, tokenizer = onnx_student(replace(state, student=model)).folder, load_tokenizer(model.folder)
            runners[name], tokens = graph_session(place / MODEL, threads), _tokens(state, tokenizer)
            rows = np.linspace(0, len(tokens) - 1, min(ROWS, len(tokens))).round().astype(int).tolist()
            feeds[name] = [model_inputs(tokens, [row]) for row in rows]
            if length is not None:
                feeds[name] = [row_of(input_names(tokenizer), length, len(tokenizer))]
        spent = time_in_turns(runners, feeds, PASSES * ROWS, 10 * SECONDS, "latency, side by side")
        if length is not None:
            times = quiet_turns(spent)
            return {"speedup": times["before"] / times["after"], **{name: 1e3 * time for name, time in times.items()}}
        fastest = quiet_rows(spent, len(feeds["before"]))
        medians = {name: 1e3 * float(np.median(seconds)) for name, seconds in fastest.items()}
        return {"speedup": float(np.median(fastest["before"] / fastest["after"])), **medians}

    about = [before.key, after.key, length, state.data.train.fingerprint]
    product = state.workshop.make(Kind("side_by_side", revision=1), [describe(threads), about], work)
    return dict(product.record), product


def _tokens(state: State, tokenizer: Any) -> Tokens:
    return tokenize(state.data.train, tokenizer, tokenizer.model_max_length)
