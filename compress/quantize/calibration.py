"""Ranges of a graph's activations, measured by running it on rows: batch after batch, nothing is kept but the ranges.

ONNX Runtime's own calibrators keep every activation of every row for percentiles and entropy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.errors import ModelError
from compress.models.tokens import Tokens
from compress.progress import progress
from compress.quantize.histogram import Histogram
from compress.quantize.ranges import (
    Calibration,
    Range,
    entropy_range,
    percentile_range,
    squared_error,
    squared_error_range,
)
from compress.runtimes.onnxruntime import inference_session
from compress.runtimes.rows import model_inputs
from compress.tasks.base import Array

TOKENS_A_BATCH = 1024
PASSED_ON = frozenset({"Cast", "Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Where"})
"""Operators that give what a softmax gave them."""


@dataclass(frozen=True, kw_only=True)
class RangeRule:
    """How ranges are chosen, with what some of the ways need."""

    how: Calibration = Calibration.minmax
    percentile: float = 99.99  # share of values inside, in %
    decay: float = 0.9  # share of a moving range that a batch leaves as it was
    symmetric: bool = False
    infinite: bool = False  # whether an infinite value may end a range, or is refused


@dataclass(frozen=True)
class MeasuredRanges:
    """The ranges of tensors, and what they cost."""

    ranges: dict[str, Range]
    excess: Mapping[str, float]  # by entropy: the squared error over that of the range by ``mse``


class Extremes:
    """The smallest and largest value so far, or moving averages of each batch's."""

    def __init__(self, decay: float | None = None, *, infinite: bool = False) -> None:
        self.decay, self.infinite = decay, infinite
        self.range: Range | None = None

    def add(self, values: Array) -> None:
        """Take a batch's values (any shape) into account.

        Raises ValueError where one is not a number, or where one is infinite and none may be.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if math.isnan(low) or not (self.infinite or (math.isfinite(low) and math.isfinite(high))):
            raise ValueError("a value is not finite")
        if self.range is None:
            self.range = low, high
        elif self.decay is None:
            self.range = min(low, self.range[0]), max(high, self.range[1])
        else:
            keep, new = self.decay, 1 - self.decay
            self.range = keep * self.range[0] + new * low, keep * self.range[1] + new * high


class Collector:
    """The range of one tensor, of which batches are seen one by one."""

    def __init__(self, rule: RangeRule) -> None:
        self.rule = rule
        simple = {Calibration.minmax: None, Calibration.moving_average: rule.decay}
        self.seen: Extremes | Histogram = (
            Extremes(simple[rule.how], infinite=rule.infinite) if rule.how in simple else Histogram()
        )

    def add(self, values: Array) -> None:
        """Take a batch's values (any shape) into account."""
        self.seen.add(values)

    def range(self) -> Range:
        """Return the range; (0, 0) where nothing was seen."""
        symmetric = self.rule.symmetric
        if isinstance(self.seen, Extremes):
            low, high = self.seen.range or (0.0, 0.0)
            end = max(-low, high)
            return (-end, end) if symmetric else (low, high)
        if not self.seen.counts.any():
            return 0.0, 0.0
        if self.rule.how is Calibration.percentile:
            return percentile_range(self.seen, self.rule.percentile, symmetric=symmetric)
        way = entropy_range if self.rule.how is Calibration.entropy else squared_error_range
        return way(self.seen, symmetric=symmetric)

    def excess(self) -> float:
        """Return the squared error of the range over that of the range with the least; 1 where nothing is lost."""
        if isinstance(self.seen, Extremes) or not self.seen.counts.any():
            return 1.0
        symmetric = self.rule.symmetric
        best, own = squared_error_range(self.seen, symmetric=symmetric), self.range()
        least, error = (squared_error(self.seen, ends, symmetric=symmetric) for ends in (best, own))
        return error / least if least > 0 else 1.0


def measure_ranges(model: Any, names: Iterable[str], tokens: Tokens, rule: RangeRule, seed: int) -> MeasuredRanges:
    """Return the ranges of the tensors ``names`` of a graph (``onnx.ModelProto``, left as it was) on rows of tokens.

    Rows of one length make a batch, so that padding, which no answer depends on, counts for nothing. What a softmax
    gives has a peak at 0 and its meaning in a thin tail, which entropy takes for noise: there it is min-max. Raises
    ModelError where a value is not finite.
    """
    import onnx

    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    wanted = list(dict.fromkeys(names))
    given = {value.name for value in graph.graph.input}
    made = [name for name in wanted if name not in given]
    graph.graph.ClearField("output")
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in made)
    session = inference_session(graph, threads=0)
    entropy, shares = rule.how is Calibration.entropy, of_softmax(graph.graph)
    outright = replace(rule, how=Calibration.minmax)
    collectors = {name: Collector(outright if entropy and name in shares else rule) for name in made}
    with progress(total=len(tokens), title="calibration", unit="row") as bar:
        for rows in even_batches(tokens, seed):
            outputs = session.run(made, model_inputs(tokens, rows.tolist()))
            for name, values in zip(made, outputs, strict=True):
                try:
                    collectors[name].add(values)
                except ValueError as error:
                    raise ModelError(
                        f"the student's {name}: {error} on training rows, so no range can stand for them. "
                        "Check that its training did not diverge."
                    ) from error
            bar.update(len(rows))
    return MeasuredRanges(
        {name: collector.range() for name, collector in collectors.items()},
        {name: collector.excess() for name, collector in collectors.items()} if entropy else {},
    )


def of_softmax(graph: Any) -> set[str]:
    """Return the tensors of an ``onnx.GraphProto`` that a softmax gives, also where they are moved or cast."""
    found: set[str] = set()
    for node in graph.node:  # in the order of their computation
        if node.op_type == "Softmax" or (node.op_type in PASSED_ON and found.intersection(node.input)):
            found.update(node.output)
    return found


def even_batches(tokens: Tokens, seed: int) -> Iterator[Array]:
    """Yield row numbers, all rows once, each batch of one length; in random order, for moving averages."""
    batches = []
    for length in np.unique(tokens.lengths):
        rows = np.flatnonzero(tokens.lengths == length)
        size = max(1, TOKENS_A_BATCH // int(length))
        batches += [rows[start : start + size] for start in range(0, len(rows), size)]
    for place in np.random.default_rng(seed).permutation(len(batches)):
        yield batches[place]
