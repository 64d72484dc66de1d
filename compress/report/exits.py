"""Early exit: what leaving early is worth at each threshold that was tried, in words and in a table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compress.benchmark.figures import ExitEntry
from compress.report import formats
from compress.report.schema import Report

TITLE = "Early exit"
CHOSEN = "★"
SHOWN = 9  # thresholds of a rule in the table, evenly taken from those that were tried


def found(report: Report) -> list[ExitEntry]:
    """Return what the artifacts with exits record, once for each rule."""
    return list({entry.exits.rule: entry.exits for entry in report.artifacts if entry.exits is not None}.values())


def in_words(report: Report) -> str:
    """Return how the table is read, and where rows leave; empty without exits."""
    taken = "; ".join(
        f"by {exits.rule}, {formats.significant(exits.average_layers)} of {exits.layers} ({_places(exits)})"
        for exits in found(report)
    )
    if not taken:
        return ""
    return (
        "A row leaves after the first layer at which the rule allows it. Layers that a test row takes on average: "
        f"{taken}. {CHOSEN} is the threshold that was chosen on validation rows; figures are PyTorch's in fp32. "
        "Single rows gain; a batch goes on until its last row leaves."
    )


def _places(exits: ExitEntry) -> str:
    counts = [f"{count:,} after layer {layer}" for layer, count in enumerate(exits.rows_by_layer, 1) if count]
    return ", ".join(counts) or formats.MISSING


def table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return headings, and a row for each rule and threshold, in the order in which they were tried."""
    metric = formats.metric_title(report.main_metric) + (" %" if formats.is_share(report.main_metric) else "")
    headings = ["Rule", "Threshold", "Layers, validation", f"{metric}, validation", "Layers, test", f"{metric}, test"]
    return headings, [line for exits in found(report) for line in _lines(report.main_metric, exits)]


def _lines(metric: str, exits: ExitEntry) -> Iterator[list[str]]:
    shown = set(np.linspace(0, len(exits.tried) - 1, min(SHOWN, len(exits.tried))).round().astype(int).tolist())
    for place, tried in enumerate(exits.tried):
        chosen = tried.threshold == exits.threshold
        if place in shown or chosen:
            worth = (tried.validation, tried.test)
            figures = [(formats.significant(own.layers), formats.metric_value(metric, own.metric)) for own in worth]
            rule = f"{CHOSEN} {exits.rule}" if chosen else exits.rule
            yield [rule, f"{tried.threshold:.4g}", *figures[0], *figures[1]]
