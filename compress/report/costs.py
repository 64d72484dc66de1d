"""What each part of a run took: time, processors, memory, disk and energy."""

from __future__ import annotations

from collections.abc import Callable

from compress.report import formats
from compress.report.schema import Report, StageCost
from compress.usage import Usage

TITLE = "Cost"
COLUMNS: dict[str, Callable[[Usage], float | None]] = {
    "Peak memory MiB": lambda usage: usage.peak_memory_mib,
    "Growth MiB": lambda usage: usage.memory_growth_mib,
    "GPU memory MiB": lambda usage: usage.peak_gpu_memory_mib,
    "Written MiB": lambda usage: usage.written_mib,
    "Processors kJ": lambda usage: _kilo(usage.processor_joules),
    "GPUs kJ": lambda usage: _kilo(usage.gpu_joules),
}
"""A column is shown where any part has a figure for it."""


def headings(report: Report) -> list[str]:
    """Return the headings of the table."""
    return ["Stage", "Time", "Processor time", *_shown(report), "Computed"]


def rows(report: Report) -> list[list[str]]:
    """Return a line for each part that made or took something, and one for the run as a whole."""
    whole = [] if report.usage is None else [["the whole run", *_cells(report, report.usage), "now"]]
    return [[cost.stage, *_cells(report, cost.usage), _when(cost)] for cost in report.costs if cost.products] + whole


def in_words(report: Report) -> str:
    """Return what the table shows, and what it does not."""
    missing = [] if any(found is not None for found in _energy(report)) else ["energy"]
    lacks = f" This machine did not tell: {', '.join(missing)}." if missing else ""
    return (
        "What it took to make what each stage needs, of the time when it was computed: where that was an earlier run, "
        "the figures are from there. What several stages need counts in the first. Loading, and what is not kept, is "
        f"only in the whole run, which is this one as it went.{lacks}"
    )


def _energy(report: Report) -> list[float | None]:
    usages = [cost.usage for cost in report.costs] + ([report.usage] if report.usage else [])
    return [joules for usage in usages for joules in (usage.processor_joules, usage.gpu_joules)]


def _shown(report: Report) -> list[str]:
    usages = [cost.usage for cost in report.costs if cost.products] + ([report.usage] if report.usage else [])
    return [title for title, of in COLUMNS.items() if any(of(usage) is not None for usage in usages)]


def _cells(report: Report, usage: Usage) -> list[str]:
    processor = formats.duration(usage.processor_seconds)
    return [formats.duration(usage.seconds), processor, *(_figure(COLUMNS[title](usage)) for title in _shown(report))]


def _figure(value: float | None) -> str:
    return formats.MISSING if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _kilo(joules: float | None) -> float | None:
    return None if joules is None else joules / 1000


def _when(cost: StageCost) -> str:
    if not cost.reused:
        return "now"
    return "earlier" if cost.reused == cost.products else "in part earlier"
