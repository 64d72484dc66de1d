"""The whole report in Markdown, for a terminal, a pull request or an archive."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from compress.markdown import code, text
from compress.report import comparisons, costs, devices, exits, formats, gates, sensitivity, words
from compress.report.columns import columns, detail
from compress.report.schema import Report
from compress.report.steps import steps
from compress.report.timings import Cell, grids
from compress.tasks.paired import Difference


def to_markdown(report: Report) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    sections = [
        [_title(report), sentence(report), bullets(report.verdicts)],
        ["## Figures", figures_table(report), bullets(words.method(report))],
        _rejected(report),
        _by_class(report),
        _comparisons(report),
        _steps(report),
        _depths(report),
        _exits(report),
        _devices(report),
        _latency(report),
        _sensitivity(report),
        _data(report),
        _augmentation(report),
        _costs(report),
        ["## Machine", table(["", ""], words.facts(report), left=2)],
        ["## Again", fenced(report.command) if report.command else "The command was not recorded.", _times(report)],
        ["## Settings", table(["setting", "value"], words.flat(report.settings), left=2)],
    ]
    return "\n\n".join(part for section in sections for part in section if part) + "\n"


def fenced(value: str) -> str:
    """Return ``value`` as a code block whose fence it cannot close."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", value)), default=0))
    return f"{fence}\n{value}\n{fence}"


def table(headings: Sequence[str], lines: Iterable[Sequence[str]], *, left: int = 1, raw: bool = False) -> str:
    """Return a table, the first ``left`` columns to the left; ``raw`` cells are Markdown already."""
    shown = [[cell if raw else text(cell) for cell in line] for line in lines]
    if not shown:
        return ""
    rule = ["---"] * left + ["---:"] * (len(headings) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in [[text(head) for head in headings], rule, *shown])


def bullets(lines: Iterable[str]) -> str:
    """Return a list, one line each."""
    return "\n".join(f"- {text(line)}" for line in lines)


def sentence(report: Report) -> str:
    """Return the verdict as a bold paragraph."""
    found = words.verdict(report)
    parts = [text(found.before), code(found.name), text(found.after)]
    return f"**{' '.join(part for part in parts if part).replace(' .', '.')}**"


def _title(report: Report) -> str:
    """Return the heading: whether to ship, the run's title, and the reasons."""
    badge = words.badge(report)
    title = text(report.title)
    return f"# {title}" if badge is None else f"# {badge.title}: {title}\n\n{_reasons(badge)}"


def shipped(report: Report) -> str:
    """Return whether to ship, and the reasons, for where the heading is another's."""
    badge = words.badge(report)
    return "" if badge is None else f"**{badge.title}**\n\n{_reasons(badge)}"


def _reasons(badge: words.Badge) -> str:
    """Return the reasons as a list."""
    return "\n".join(f"- **{text(reason.text)}** {text(reason.detail)}".rstrip() for reason in badge.reasons)


def figures_table(report: Report) -> str:
    """Return the one table of stages, artifacts and baselines; the recommended artifact is bold."""
    shown = columns(report)
    lines = []
    for entry in report.entries:
        name = f"**{text(entry.name)}** (recommended)" if entry is report.best else text(entry.name)
        lines.append([entry.group, name, text(detail(entry)), *(text(column.cell(entry)) for column in shown)])
    return table(["", "Name", "What", *(column.title for column in shown)], lines, left=3, raw=True)


def _steps(report: Report) -> Iterator[str]:
    metric = report.main_metric
    lines = [
        (
            step.entry.name,
            step.before.name,
            formats.change(step.latency),
            formats.change(step.size),
            formats.points(metric, step.metric) + _range(metric, step.paired) + " (may be chance)" * step.chance,
        )
        for step in steps(report)
    ]
    if lines:
        unit = ", points" if formats.is_share(metric) else ""
        yield "## What each step did by itself"
        yield table(["Step", "Against", "Latency", "Size", formats.metric_title(metric) + unit], lines, left=2)


def _range(metric: str, difference: Difference | None) -> str:
    return formats.points_range(metric, (difference.low, difference.high)) if difference else ""


def _by_class(report: Report) -> Iterator[str]:
    models, lines = words.by_class(report)
    if lines:
        yield "## By class"
        headings = [f"{model}: {column} %" for model in models for column in words.PER_CLASS]
        yield table(["Class", "Test rows", *headings], lines)
        yield text(words.absent(report))


def _comparisons(report: Report) -> Iterator[str]:
    lines = comparisons.rows(report)
    if lines:
        yield f"## {comparisons.TITLE}"
        yield text(comparisons.in_words(report))
        yield table(comparisons.HEADINGS, lines, left=2)


def _rejected(report: Report) -> Iterator[str]:
    if report.rejected:
        yield f"## {gates.TITLE}"
        yield text(gates.explained(report))
        yield table(gates.HEADINGS, gates.rows(report))
        for rejected in report.rejected:
            if rejected.costs:
                yield f"What {text(rejected.precision or 'int8')} costs in each part of {text(rejected.name)}, alone:"
                yield table(gates.COST_HEADINGS, gates.costs(rejected))


def _depths(report: Report) -> Iterator[str]:
    if report.depths:
        yield f"## {text(words.depths_title(report))}"
        yield text(words.depths(report))
        yield table(*words.depth_table(report))


def _exits(report: Report) -> Iterator[str]:
    if told := exits.in_words(report):
        yield f"## {exits.TITLE}"
        yield text(told)
        yield table(*exits.table(report))


def _devices(report: Report) -> Iterator[str]:
    if lines := devices.rows(report):
        yield f"## {devices.TITLE}"
        yield text(devices.in_words(report))
        yield table(devices.headings(report), lines, left=3)


def _latency(report: Report) -> Iterator[str]:
    for grid in grids(report):
        yield f"## Latency: {text(grid.place)}"
        against = f"the {report.against} in eager PyTorch fp32"
        yield f"Median milliseconds; in brackets the factor against {against}, same condition."
        lines = [[name, *map(_timing, cells)] for name, cells in grid.rows]
        yield table(["", *(f"{batch}, {tokens}" for batch, tokens in grid.columns)], lines)
    ran = [(entry.name, entry.int8_matmuls) for entry in report.artifacts if entry.int8_matmuls]
    if ran:
        yield "## What int8 ran"
        yield bullets(f"{name}: {some} of {all_} matrix products ran in int8." for name, (some, all_) in ran)
    flipped = [(entry.name, entry.flipped.count) for entry in report.artifacts if entry.flipped and entry.flipped.count]
    if flipped:
        yield "## Rows that flipped"
        yield bullets(
            f"{name}: {count:,} test rows are answered differently than by the student." for name, count in flipped
        )


def _sensitivity(report: Report) -> Iterator[str]:
    for entry in report.artifacts:
        if entry.sensitivity is not None:
            yield f"## What int8 costs in each part: {text(entry.name)}"
            yield text(sensitivity.in_words(entry.sensitivity))
            yield table(sensitivity.HEADINGS, sensitivity.rows(entry.sensitivity))


def _costs(report: Report) -> Iterator[str]:
    if lines := costs.rows(report):
        yield f"## {costs.TITLE}"
        yield text(costs.in_words(report))
        yield table(costs.headings(report), lines)


def _timing(cell: Cell | None) -> str:
    if cell is None:
        return formats.MISSING
    noisy = " noisy" if cell.latency.noise else ""
    factor = f" ({formats.times(cell.speedup)})" if cell.speedup else ""
    return formats.significant(cell.latency.median_ms) + noisy + factor


def _data(report: Report) -> Iterator[str]:
    yield "## Data"
    facts = [("name", report.dataset.name), ("rows", words.splits(report)), ("fingerprint", report.dataset.fingerprint)]
    labels = [("labels", ", ".join(report.task.labels))] if report.task.labels else []
    read = words.reading(report)
    yield table(["", ""], [(name, value or formats.MISSING) for name, value in facts + labels + read], left=2)
    yield bullets(report.dataset.notes)
    notes = [f"{entry.name}: {note}" for entry in report.entries for note in entry.notes]
    if notes:
        yield "## Notes"
        yield bullets(notes)


def _augmentation(report: Report) -> Iterator[str]:
    for made in report.augmentation:
        yield f"## Augmentation: {text(made.kind)}"
        yield text(words.augmented(made))
        yield table(["", ""], words.augmentation_facts(made), left=2)
        yield table(["Original", "Augmented"], words.examples(made), left=2)


def _times(report: Report) -> str:
    parts = [f"Seed {report.seed}." if report.seed is not None else ""]
    parts.append(f"Started {report.started}." if report.started else "")
    parts.append(f"Took {formats.duration(report.seconds)}." if report.seconds is not None else "")
    reused = [stage.name for stage in report.stages if stage.reused]
    parts.append(f"Reused from an earlier run: {', '.join(reused)}." if reused else "")
    return text(" ".join(part for part in parts if part))
