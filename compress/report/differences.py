"""Several runs side by side, and what makes their figures incomparable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compress.benchmark.figures import Entry
from compress.report import formats
from compress.report.columns import columns, place
from compress.report.schema import Report

Labelled = Sequence[tuple[str, Report]]


def labelled(reports: Labelled) -> Labelled:
    """Return reports with short labels; of labels that are paths, the folder that all share is left out."""
    labels = [label for label, _ in reports]
    parts = [label.split("/") for label in labels]
    shared = 0
    while len(labels) > 1 and all(len(path) > shared + 1 and path[shared] == parts[0][shared] for path in parts):
        shared += 1
    return [("/".join(path[shared:]), report) for path, (_, report) in zip(parts, reports, strict=True)]


def side_by_side(reports: Labelled, *, short: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return headings and one line per run: what it ships (the recommended artifact, else its student) in figures."""
    headings: list[str] = []
    lines = []
    every = [report for _, report in reports]
    for label, report in reports:
        shown = columns(report, short=short, beside=every)
        entry = chosen(report)
        headings = headings or ["Run", "Ships", *(column.title for column in shown)]
        cells = [column.cell(entry) if entry else formats.MISSING for column in shown]
        lines.append([label, entry.name if entry else formats.MISSING, *cells])
    return headings, lines


def chosen(report: Report) -> Entry | None:
    """Return what a run stands for in a comparison."""
    return report.best or report.student


def differences(reports: Labelled) -> list[str]:
    """Return one sentence for each difference that forbids comparing a figure."""
    checks: list[tuple[str, str, Callable[[Report], str]]] = [
        ("have different main metrics", "their scores cannot be compared", lambda run: run.main_metric),
        ("were measured on different test rows", "accuracies cannot be compared", _data),
        (
            "have different numbers of test rows",
            "accuracies cannot be compared",
            _rows,
        ),
        ("ran on different machines", "milliseconds and speedups cannot be compared", _machine),
        ("were timed with different devices or threads", "milliseconds and speedups cannot be compared", _place),
        ("used different versions of PyTorch or ONNX Runtime", "milliseconds may differ for that reason", _versions),
        ("have different teachers", "the kept shares and speedups are relative to different baselines", _teacher),
    ]
    found = []
    for what, so, of in checks:
        values = [(label, of(report)) for label, report in reports]
        if len({value for _, value in values}) > 1:
            listed = "; ".join(f"{label}: {value}" for label, value in values)
            found.append(f"The runs {what}: {so} ({listed}).")
    return found


def _data(report: Report) -> str:
    """Return a short hash of the test rows, or of all rows where a report of an earlier version has no other."""
    return (report.dataset.test_fingerprint or report.dataset.fingerprint)[:8] or "not recorded"


def _rows(report: Report) -> str:
    return formats.count(report.test_rows)


def _machine(report: Report) -> str:
    names = ("cpu", "instructions", "cores", "gpu")
    found = [report.machine.get(name) for name in names]
    told = [" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in found if value]
    return ", ".join(told) or "not recorded"


def _place(report: Report) -> str:
    threads = report.machine.get("threads")
    return place(report.place or ("", threads if isinstance(threads, int) else None)) or "not recorded"


def _versions(report: Report) -> str:
    return ", ".join(f"{name} {report.versions[name]}" for name in ("torch", "onnxruntime") if name in report.versions)


def _teacher(report: Report) -> str:
    if report.given:
        return f"none, but a given student, {formats.parameters(report.given.parameters)} parameters"
    settings = report.settings.get("teacher")
    name = settings.get("model") if isinstance(settings, dict) else None
    size = formats.parameters(report.teacher.parameters) if report.teacher else formats.MISSING
    return f"{name or 'unnamed'}, {size} parameters"
