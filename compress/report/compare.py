"""Several runs on one page, with a warning for all that makes them incomparable."""

from __future__ import annotations

import os
from pathlib import Path

from markupsafe import Markup

from compress.errors import CompressError
from compress.files import storage_faults, writable
from compress.report import formats, over_seeds
from compress.report.columns import columns
from compress.report.differences import Labelled, chosen, differences, labelled, side_by_side
from compress.report.html import both, render
from compress.report.tradeoff import tradeoff_of_runs
from compress.report.words import condition, rows

KIND = '<meta name="generator" content="compress compare">'
"""In the head of every page, so that one can be replaced by the next and nothing else is."""


def writable_page(path: Path) -> Path:
    """Return ``path`` if a page can be written there; raises CompressError where something else stands."""
    writable(path.parent)
    if os.path.lexists(path):
        with storage_faults(path):
            is_page = path.is_file() and KIND in path.read_text(encoding="utf-8", errors="replace")[:4096]
        if not is_page:
            raise CompressError(f"--output {path}: exists, and was not written by compress compare. Name another file.")
    return path


def comparison_html(reports: Labelled) -> str:
    """Return a page that sets labelled reports side by side. Raises CompressError when there are none."""
    if not reports:
        raise CompressError("There is nothing to compare. Name two or more run folders.")
    parsed = labelled(reports)
    headings, lines = side_by_side(parsed)
    found, why = over_seeds.over_seeds(reports)
    return render(
        "comparison.html.j2",
        kind=Markup(KIND),
        runs=parsed,
        warnings=differences(parsed),
        headings=headings,
        lines=lines,
        seeds=over_seeds.rows(found),
        seeds_title=over_seeds.TITLE,
        seeds_headings=over_seeds.HEADINGS,
        seeds_said=why or (over_seeds.SAID if found else ""),
        picture=both(tradeoff_of_runs, parsed) if len({report.main_metric for _, report in parsed}) == 1 else None,
        columns=columns,
        chosen=chosen,
        rows=rows(parsed[0][1]),
        condition=condition(parsed[0][1]),
        metric=formats.metric_name(parsed[0][1].main_metric),
    )
