"""What a tracker is sent of a finished run, beside the curves that it has from the trainings themselves."""

from __future__ import annotations

from compress.report.markdown import figures_table
from compress.report.schema import Report
from compress.train.tracking.base import Tracker


def send(report: Report, tracker: Tracker) -> None:
    """Send the curves of trainings that were in the cache, the figures of all models, and their table."""
    for stage in report.stages:
        if stage.reused and stage.curves:
            tracker.curve(stage.name, stage.curves)
    figures: dict[str, float] = {}
    for entry in report.entries:
        found = entry.metrics | {
            "size_mib": entry.size_mib, "speedup": entry.speedup, "retained": entry.retained,
            "median_ms": report.milliseconds(entry),
        }  # fmt: skip
        figures |= {f"{entry.group}/{entry.name}/{name}": value for name, value in found.items() if value is not None}
    tracker.result(figures, figures_table(report))
