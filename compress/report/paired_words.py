"""Comparisons of two models in words."""

from __future__ import annotations

from dataclasses import replace

from compress.benchmark.figures import Entry
from compress.report import formats
from compress.report.schema import Report
from compress.tasks.paired import Difference


def turned(difference: Difference) -> Difference:
    """Return the same difference, seen from the other side."""
    return replace(difference, value=-difference.value, low=-difference.high, high=-difference.low)


def in_words(difference: Difference) -> str:
    """Return a difference in words: "accuracy +1.2 points, 95 % interval +0.3 to +2.1"."""
    metric = difference.metric
    unit = " points" if formats.is_share(metric) else ""
    value, low, high = (
        formats.points(metric, number) for number in (difference.value, difference.low, difference.high)
    )
    return f"{formats.metric_name(metric)} {value}{unit}, 95\N{NO-BREAK SPACE}% interval {low} to {high}"


def sides(report: Report, first: Entry, other: Entry) -> str:
    """Return the main metric of two entries: "71.7 % against 31.1 %"."""
    return " against ".join(formats.with_unit(report.main_metric, report.metric(side)) for side in (first, other))
