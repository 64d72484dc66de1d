"""The page: one file that needs no network, for a screen of any width, light or dark, and for paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from compress.report import comparisons, devices, formats, sensitivity, words
from compress.report.columns import GROUPS, columns, detail
from compress.report.contributions import contributions
from compress.report.curves import curves
from compress.report.depths import depths
from compress.report.document import parse
from compress.report.records import Entry
from compress.report.steps import steps
from compress.report.timings import grids
from compress.report.tradeoff import tradeoff


def to_html(report: Mapping[str, Any]) -> str:
    """Return the whole page. All text from the report is escaped; there is no script in it."""
    parsed = parse(report)
    pictures = [(entry, both(curves, parsed, entry)) for entry in parsed.entries]
    return render(
        "report.html.j2",
        report=parsed,
        verdict=words.verdict(parsed),
        figures=words.figures(parsed),
        tradeoff=both(tradeoff, parsed),
        columns=columns(parsed),
        groups=[
            (title, found)
            for group, title in GROUPS.items()
            if (found := [entry for entry in parsed.entries if entry.group == group])
        ],
        detail=detail,
        method=words.method(parsed),
        contributions=both(contributions, parsed),
        steps=list(steps(parsed)),
        comparisons=comparisons.rows(parsed),
        comparisons_title=comparisons.TITLE,
        comparisons_said=comparisons.said(parsed),
        comparison_headings=comparisons.HEADINGS,
        device_rows=devices.rows(parsed),
        device_title=devices.TITLE,
        device_said=devices.said(parsed),
        device_headings=devices.headings(parsed),
        depths=both(depths, parsed),
        depths_title=words.depths_title(parsed),
        depths_said=words.depths(parsed),
        depth_table=words.depth_table(parsed),
        curves=[(entry, picture) for entry, picture in pictures if picture],
        grids=grids(parsed),
        shape=shape,
        metrics=list(dict.fromkeys(name for entry in parsed.entries for name in entry.metrics)),
        int8=[
            entry
            for entry in parsed.artifacts
            if entry.int8_matmuls or ("int8" in entry.precision and entry.runtime != "pytorch")
        ],
        sensitivities=[
            (entry, both(sensitivity.sensitivities, entry), sensitivity.said(measured), sensitivity.rows(measured))
            for entry in parsed.artifacts
            if (measured := entry.sensitivity)
        ],
        sensitivity_headings=sensitivity.HEADINGS,
        flipped=[(entry, entry.flipped) for entry in parsed.artifacts if entry.flipped and entry.flipped.count],
        entry_notes=[entry for entry in parsed.entries if entry.notes],
        splits=words.splits(parsed),
        reading=words.reading(parsed),
        augmentations=[(made, words.augmented(made), words.augmentation_facts(made)) for made in parsed.augmentations],
        facts=words.facts(parsed),
        settings=words.flat(parsed.settings),
        condition=words.condition(parsed),
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
    """Return a model's layers as (what, one number a layer), or one number where all are equal."""
    found = []
    for key in dict.fromkeys(key for layer in entry.layers for key in layer):
        values = [formats.count(layer[key]) if isinstance(layer.get(key), int) else "–" for layer in entry.layers]
        found.append((key, values[0] if len(set(values)) == 1 else " · ".join(values)))
    return found


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
