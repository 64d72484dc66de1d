"""The columns of the one table that the terminal, Markdown, the page and the model card show alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compress.benchmark.figures import Entry
from compress.report import formats
from compress.report.schema import Report

GROUPS = {
    "stage": "After each stage",
    "artifact": "Artifacts",
    "baseline": "Cheap baselines",
}


@dataclass(frozen=True)
class Column:
    """A heading with its unit, and the text of an entry's cell."""

    title: str
    cell: Callable[[Entry], str]


def columns(report: Report, *, short: bool = False, beside: Sequence[Report] = ()) -> list[Column]:
    """Return the figures shown for every entry.

    ``short``, for a terminal's width, writes intervals as ± and leaves out parameters and quiet timings. There are
    columns for all that this report or one of those ``beside`` it has.
    """
    metric = report.main_metric
    every = [report, *beside]
    quiet_too = not short and any(shown.has_quiet_timings for shown in every)
    over_int8 = [Column("vs int8", lambda entry: formats.times(entry.over_int8))]

    def quality(entry: Entry) -> str:
        if entry.not_measured:
            return "not measured"
        value, interval = report.metric(entry), report.interval(entry)
        tail = formats.plus_minus(metric, value, interval) if short else formats.brackets(metric, interval)
        return formats.metric_value(metric, value) + (tail if value is not None else "")

    def milliseconds(entry: Entry) -> str:
        found = entry.headline(report.place)
        if found is None and entry.stated_ms is not None:
            return f"{formats.significant(entry.stated_ms)} (stated)"
        elsewhere = f" ({place(found.place)})" if found and found.place != report.place else ""
        noisy = ("*" if short else " noisy") if found and found.noise else ""
        quiet = f" ({formats.significant(found.quiet_ms)})" if quiet_too and found and found.quiet_ms else ""
        return formats.significant(found.median_ms if found else None) + quiet + noisy + elsewhere

    stated = any(entry.cost_per_1000 is not None for shown in every for entry in shown.stages)
    cost = [Column("Cost/1,000", lambda entry: formats.significant(entry.cost_per_1000))] if stated else []
    unit = " %" if formats.is_share(metric) else ""
    return [
        Column(formats.metric_title(metric) + unit, quality),
        Column("Kept %", lambda entry: formats.percent(entry.retained)),
        Column("MiB", lambda entry: formats.significant(entry.size_mib)),
        *(() if short else (Column("Params", lambda entry: formats.parameters(entry.parameters)),)),
        Column("ms (quiet)" if quiet_too else "ms", milliseconds),
        *cost,
        Column("Speedup", lambda entry: formats.times(entry.speedup)),
        *(over_int8 if any(shown.has_int8_speedups for shown in every) else ()),
        Column("Agree %", lambda entry: formats.percent(entry.agreement)),
    ]


def place(where: tuple[str, int | None] | None) -> str:
    """Return device and threads in words: "cpu, 1 thread"."""
    if where is None:
        return "device not recorded"
    device, threads = where
    return ", ".join(
        part for part in (device, f"{threads} thread{'s' * (threads != 1)}" if threads is not None else "") if part
    )


def detail(entry: Entry) -> str:
    """Return what an entry is, beside its name: a stage's class, a baseline in words, runtime and precision."""
    if entry.group == "baseline" and entry.kind:
        return entry.kind
    return " ".join(part for part in (entry.kind, entry.runtime, entry.precision) if part)
