"""The page of a search: the frontier of all trials, with the teacher's own forms as the line to beat."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from compress.report import formats
from compress.report.figure import COLOURS
from compress.report.html import both, render
from compress.report.tradeoff import Point, picture
from compress.search.candidates import COPIES
from compress.search.result import FORM_NAMES, SearchReport, TrialEntry

WAYS = {
    "mse": ("logits", "their squared error, beside the labels"),
    "soft": ("soft targets", "the teacher's probabilities, beside the labels"),
    "layers_first": ("layers first", "TinyBERT's layer losses, then soft targets and labels"),
    "together": ("all at once", "layer losses, soft targets and labels"),
}


def to_page(report: SearchReport) -> str:
    """Return the whole page. All text from the report is escaped; there is no script in it."""
    return render(
        "search.html.j2",
        report=report,
        asked=asked(report),
        form_names=FORM_NAMES,
        ways=WAYS,
        copies=COPIES,
        picture=both(frontier_of, report),
        trials=sorted(report.trials, key=lambda trial: trial.metrics[-1:], reverse=True),
        noisy=_noisy(report),
        metric=formats.metric_name(report.metric),
        value=partial(formats.metric_value, report.metric),
    )


def _noisy(report: SearchReport) -> dict[str, list[str]]:
    """Return which timings were noisy, by why they were."""
    found: dict[str, list[str]] = {}
    for form in report.forms:
        if form.noise:
            found.setdefault(form.noise, []).append(f"{form.name} as {FORM_NAMES[form.form]}")
    every = [["all timings"] if len(forms) == len(report.forms) else forms for forms in found.values()]
    return dict(zip(found, every, strict=True))


def asked(report: SearchReport) -> str:
    """Return the target in words."""
    target = report.target
    parts = []
    if (milliseconds := target["latency_ms"]) is not None:
        parts.append(f"at most {milliseconds:g} ms per row")
    if (times := target["speedup"]) is not None:
        parts.append(f"{times:g}× as fast as the teacher in eager PyTorch")
    if (share := target["keep"]) is not None:
        parts.append(f"{share:.1%} of the teacher's {formats.metric_name(report.metric)}")
    return " and ".join(parts)


def frontier_of(report: SearchReport, *, narrow: bool = False) -> str:
    """Return the picture: each candidate's best trial, the teacher's forms, on validation rows."""
    points = [*_teacher(report), *_best(report)]
    threads = report.machine.get("threads", 1)
    place = f"cpu, {threads} thread{'s' if threads != 1 else ''}, validation rows"
    return picture("frontier", points, report.metric, place, narrow=narrow)


def _teacher(report: SearchReport) -> Iterator[Point]:
    eager = next((form for form in report.forms if form.form == "eager"), None)
    if eager is not None:
        yield Point("teacher", eager.ms, report.teacher, None, COLOURS["teacher"], "D")
    for free in report.free:
        name = f"teacher, {FORM_NAMES[free.form]}"
        yield Point(name, free.ms, free.metric, None, COLOURS["baseline"], "^", rank=1)


def _best(report: SearchReport) -> Iterator[Point]:
    """Yield the best trial of each candidate; of the one that was chosen, that trial."""
    chosen = next((finalist.number for finalist in report.finalists if finalist.chosen), None)
    best: dict[str, TrialEntry] = {}
    ended = [trial for trial in report.trials if trial.metrics]
    for trial in sorted(ended, key=lambda trial: (trial.number == chosen, trial.metrics[-1])):
        best[trial.candidate] = trial
    for name, trial in best.items():
        ringed = trial.number == chosen
        yield Point(name, trial.ms, trial.metrics[-1], None, COLOURS["artifact"], "o", ringed=ringed, rank=-ringed)
