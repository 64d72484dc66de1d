"""Models and artifacts on every device and in every variant, where a run measured more than one way."""

from __future__ import annotations

from compress.report import formats
from compress.report.schema import Report

TITLE = "Every device"


def headings(report: Report) -> list[str]:
    """Return the headings of the table."""
    unit = " %" if formats.is_share(report.main_metric) else ""
    return ["", "Device", "Variant", formats.metric_title(report.main_metric) + unit, "Rows/s", "Speedup", "Agree %"]


def in_words(report: Report) -> str:
    """Return what the table shows."""
    return (
        "Each way was run on the test rows, one at a time. Rows per second and speedups are without tokenization and, "
        f"on a GPU, without copies; speedups are against the {report.against} in its first variant on the same device."
    )


def rows(report: Report) -> list[list[str]]:
    """Return a line per model, device and variant that ran; none where there is one way for each."""
    return [
        [
            entry.name,
            run.device,
            " ".join(dict.fromkeys(part for part in (entry.runtime, run.variant or run.precision) if part)),
            formats.metric_value(report.main_metric, run.metrics.get(report.main_metric)),
            formats.significant(run.rows_per_second),
            formats.times(run.speedup),
            formats.percent(run.agreement),
        ]
        for entry in report.entries
        for run in entry.runs
        if not run.not_measured
    ]


def unmeasured(report: Report) -> list[str]:
    """Return each reason why something did not run on a device once, after what it concerns."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for entry in report.entries:
        for run in entry.runs:
            if run.not_measured:
                name = f"{entry.name} ({run.variant})" if run.variant else entry.name
                reasons.setdefault((run.device, run.not_measured), []).append(name)
        for timing in entry.latency:
            if timing.not_measured:
                variant = f" ({timing.variant})" if timing.variant else ""
                length = "real rows" if timing.tokens == "real" else f"{timing.batch} × {timing.tokens} tokens"
                names = reasons.setdefault((timing.device, timing.not_measured), [])
                if (name := f"{entry.name}{variant}, {length}") not in names:  # with copies and without
                    names.append(name)
    return [f"Not measured on {device}: {', '.join(names)}: {why}." for (device, why), names in reasons.items()]
