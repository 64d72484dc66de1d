"""Who is better on the same rows: every paired comparison of a report, as a table."""

from __future__ import annotations

from compress.report import formats
from compress.report.schema import Report

TITLE = "Who is better, on the same rows"
HEADINGS = ["Model", "Against", "Difference", "95 % interval", "p", "Says"]


def rows(report: Report) -> list[list[str]]:
    """Return a line for each comparison: both sides, the difference of the main metric, its interval, p, and a word."""
    metric = report.main_metric
    return [
        [
            entry.name,
            against,
            formats.points(metric, found.value),
            formats.points_range(metric, (found.low, found.high)).strip(),
            formats.probability(found.p),
            ("better" if found.value > 0 else "worse") if found.clear else "may be chance",
        ]
        for entry in report.entries
        for against, found in entry.differences.items()
    ]


def in_words(report: Report) -> str:
    """Return how the comparisons were made, in two sentences."""
    test = report.task.test or "a paired test"
    unit = " in points" if formats.is_share(report.main_metric) else ""
    return (
        f"{formats.metric_title(report.main_metric)} of the model less that of the other{unit}, by {test}. "
        "It says better or worse where p is below 0.05; one run shows nothing of how seeds differ."
    )
