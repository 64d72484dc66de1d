"""The page: one file that needs no network, for a screen of any width, light or dark, and for paper."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from compress.benchmark.figures import Entry
from compress.report import comparisons, costs, devices, exits, formats, gates, sensitivity, words
from compress.report.columns import GROUPS, columns, detail
from compress.report.contributions import contributions
from compress.report.curves import curves
from compress.report.depths import depths
from compress.report.schema import Report
from compress.report.steps import steps
from compress.report.timings import grids
from compress.report.tradeoff import tradeoff


def to_html(report: Report) -> str:
    """Return the whole page. All text from the report is escaped; there is no script in it."""
    pictures = [(entry, both(curves, report, entry)) for entry in report.entries]
    return render(
        "report.html.j2",
        report=report,
        badge=words.badge(report),
        verdict=words.verdict(report),
        figures=words.figures(report),
        tradeoff=both(tradeoff, report),
        columns=columns(report),
        groups=[
            (title, found)
            for group, title in GROUPS.items()
            if (found := [entry for entry in report.entries if entry.group == group])
        ],
        detail=detail,
        method=words.method(report),
        class_models=words.by_class(report)[0],
        class_lines=words.by_class(report)[1],
        per_class=words.PER_CLASS,
        absent=words.absent(report),
        contributions=both(contributions, report),
        steps=list(steps(report)),
        rejected=[(entry, gates.costs(entry)) for entry in report.rejected],
        rejected_title=gates.TITLE,
        rejected_said=gates.explained(report),
        rejected_headings=gates.HEADINGS,
        rejected_rows=gates.rows(report),
        cost_headings=gates.COST_HEADINGS,
        comparisons=comparisons.rows(report),
        comparisons_title=comparisons.TITLE,
        comparisons_said=comparisons.in_words(report),
        comparison_headings=comparisons.HEADINGS,
        device_rows=devices.rows(report),
        device_title=devices.TITLE,
        device_said=devices.in_words(report),
        device_headings=devices.headings(report),
        cost_rows=costs.rows(report),
        cost_title=costs.TITLE,
        cost_said=costs.in_words(report),
        usage_headings=costs.headings(report),
        depths=both(depths, report),
        depths_title=words.depths_title(report),
        depths_said=words.depths(report),
        depth_table=words.depth_table(report),
        exits_title=exits.TITLE,
        exits_said=exits.in_words(report),
        exit_table=exits.table(report),
        curves=[(entry, picture) for entry, picture in pictures if picture],
        grids=grids(report),
        noise=words.noise(report),
        shape=shape,
        metrics=list(dict.fromkeys(name for entry in report.entries for name in entry.metrics)),
        int8=[entry for entry in report.artifacts if entry.int8_matmuls],
        sensitivities=[
            (entry, both(sensitivity.sensitivities, entry), sensitivity.in_words(measured), sensitivity.rows(measured))
            for entry in report.artifacts
            if (measured := entry.sensitivity)
        ],
        sensitivity_headings=sensitivity.HEADINGS,
        flipped=[(entry, entry.flipped) for entry in report.artifacts if entry.flipped and entry.flipped.count],
        entry_notes=[entry for entry in report.entries if entry.notes],
        splits=words.splits(report),
        reading=words.reading(report),
        augmentations=[
            (made, words.augmented(made), words.augmentation_facts(made), words.examples(made))
            for made in report.augmentation
        ],
        facts=words.facts(report),
        settings=words.flat(report.settings),
        condition=words.condition(report),
    )


def render(template: str, **values: Any) -> str:
    """Return a filled template of this package."""
    return _environment().get_template(template).render(**values)


def both(paint: Callable[..., str], *subjects: object) -> Markup | None:
    """Return a picture drawn for a wide and for a narrow screen, of which the page shows one; None when empty."""
    wide = paint(*subjects)
    if not wide:
        return None
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(
        Markup(wide), Markup(paint(*subjects, narrow=True))
    )


def shape(entry: Entry) -> list[tuple[str, str]]:
    """Return a model's layers as (what, one number per layer), or one number where all are equal."""
    counts = {"heads": [layer.heads for layer in entry.layers], "neurons": [layer.neurons for layer in entry.layers]}
    return [
        (what, formats.count(numbers[0]) if len(set(numbers)) == 1 else " · ".join(map(formats.count, numbers)))
        for what, numbers in counts.items()
        if numbers
    ]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("compress.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["f"] = formats
    return environment
