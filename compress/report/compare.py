"""Several runs on one page, with a warning for all that makes them incomparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compress.errors import CompressError
from compress.report import formats
from compress.report.columns import columns
from compress.report.differences import chosen, differences, labelled, side_by_side
from compress.report.html import both, render
from compress.report.tradeoff import tradeoff_of_runs
from compress.report.words import condition, rows


def comparison_html(reports: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return a page that sets labelled reports side by side. Raises CompressError when there are none."""
    if not reports:
        raise CompressError("There is nothing to compare. Name two or more run folders.")
    parsed = labelled(reports)
    headings, lines = side_by_side(parsed)
    return render(
        "comparison.html.j2",
        runs=parsed,
        warnings=differences(parsed),
        headings=headings,
        lines=lines,
        picture=both(tradeoff_of_runs, parsed) if len({report.main_metric for _, report in parsed}) == 1 else None,
        columns=columns,
        chosen=chosen,
        rows=rows(parsed[0][1]),
        condition=condition(parsed[0][1]),
        metric=formats.metric_title(parsed[0][1].main_metric).lower(),
    )
