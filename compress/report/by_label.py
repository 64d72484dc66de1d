"""What the teacher, the student and the recommended artifact are worth for each label by itself."""

from __future__ import annotations

from compress.benchmark.figures import Entry
from compress.report import formats
from compress.report.schema import Report

TITLE = "Label by label"
SUPPORT = "support"
METRICS = ("f1", "recall")


def headings(report: Report) -> list[str]:
    """Return the headings of `rows`."""
    named = [f"{entry.name}: {formats.metric_title(name)} %" for entry in _shown(report) for name in _metrics(report)]
    return ["Label", "Number", *named]


def rows(report: Report) -> list[list[str]]:
    """Return a line for each label, the most frequent first; nothing where the task has no such metrics."""
    shown = _shown(report)
    support: dict[str, float] = {}
    for entry in shown:
        for label, figures in entry.by_label.items():
            support[label] = max(support.get(label, 0.0), figures.get(SUPPORT, 0.0))
    lines = []
    for label in sorted(support, key=lambda name: (-support[name], name)):
        cells = [
            formats.metric_value(name, entry.by_label.get(label, {}).get(name))
            for entry in shown
            for name in _metrics(report)
        ]
        lines.append([label, f"{support[label]:,.0f}", *cells])
    return lines


def said(report: Report) -> str:
    """Return what the figures are of."""
    return f"Each label alone, on {report.test_rows or 0:,} test rows; number: how often it occurs there."


def _shown(report: Report) -> list[Entry]:
    """Return the entries that are shown: the teacher, the student, what is recommended, each once."""
    entries = [entry for entry in (report.reference, report.student, report.best) if entry and entry.by_label]
    return list({id(entry): entry for entry in entries}.values())


def _metrics(report: Report) -> list[str]:
    known = {name for entry in _shown(report) for figures in entry.by_label.values() for name in figures}
    return [name for name in METRICS if name in known]
