"""The table that ends a run in the terminal, and the one that sets runs side by side."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.report import devices, over_seeds, words
from compress.report.columns import GROUPS, columns
from compress.report.differences import Labelled, differences, labelled, side_by_side
from compress.report.schema import Report

MARK = "★"
STYLES = {"good": "bold white on green", "care": "bold black on yellow", "stop": "bold white on red"}


def print_report(report: Report, console: Console) -> None:
    """Print whether to ship, the verdict, the table of models, and what must be known to read it."""
    sentence = words.verdict(report)
    console.print()
    if badge := words.badge(report):
        console.print(Text(f" {badge.title.upper()} ", style=STYLES[badge.tone]))
        for reason in badge.reasons:
            console.print(Text.assemble("• ", (reason.text, "bold"), f" {reason.detail}" if reason.detail else ""))
        console.print()
    console.print(Text.assemble(sentence.before, (sentence.name, "bold green"), sentence.after))
    console.print(figures_table(report))
    if devices.rows(report):
        console.print(devices_table(report))
    mark = f"{MARK} recommended. " if report.best else ""
    console.print(
        Text(
            f"{mark}{words.rows(report)}; ± is the 95 % interval. ms: {words.condition(report)}, without tokenization. "
            f"Kept and speedup: against the {report.against}, eager PyTorch fp32. "
            f"{'vs int8: against the teacher in int8 without training. ' if report.has_int8_speedups else ''}"
            f"Agree: {'' if report.given else 'stages with the teacher, artifacts '}with the PyTorch student.",
            style="dim",
        )
    )
    for line in words.noise(report):
        console.print(Text(f"* {line}", style="yellow"))
    for line in (*words.unmeasured(report), *report.verdicts):
        console.print(Text(f"• {line}"))


def devices_table(report: Report) -> Table:
    """Return the table of every device and variant."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, heading in enumerate(devices.headings(report)):
        table.add_column(heading, justify="left" if number < 3 else "right", overflow="fold")
    for line in devices.rows(report):
        table.add_row(*map(Text, line))
    return table


def figures_table(report: Report) -> Table:
    """Return the table of all models; groups are told apart by a heading row."""
    shown = columns(report, short=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    for column in shown:
        table.add_column(column.title, justify="right", no_wrap=True)
    for group, title in GROUPS.items():
        entries = [entry for entry in report.entries if entry.group == group]
        if entries:
            table.add_row(Text(title, style="dim"))
        for number, entry in enumerate(entries):
            chosen = entry is report.best
            name = Text(f"{MARK} {entry.name}" if chosen else f"  {entry.name}")
            if group == "artifact" and entry.precision:
                name.append(f" {entry.precision}", style="dim")
            table.add_row(
                name,
                *(Text(column.cell(entry)) for column in shown),
                style="bold green" if chosen else "",
                end_section=number == len(entries) - 1,
            )
    return table


def print_comparison(reports: Labelled, console: Console) -> None:
    """Print one line for each labelled report, and a warning for all that makes them incomparable."""
    parsed = labelled(reports)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    headings, lines = side_by_side(parsed, short=True)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right", overflow="fold", no_wrap=number > 1)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table)
    for warning in differences(parsed):
        console.print(Text(f"Warning: {warning}", style="yellow"))
    found, why = over_seeds.over_seeds(reports)
    if found:
        seeds = Table(title=over_seeds.TITLE, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for number, heading in enumerate(over_seeds.HEADINGS):
            seeds.add_column(heading, justify="left" if number < 2 else "right", overflow="fold")
        for line in over_seeds.rows(found):
            seeds.add_row(*map(Text, line))
        console.print(seeds)
    if why or found:
        console.print(Text(why or over_seeds.SAID, style="dim"))
