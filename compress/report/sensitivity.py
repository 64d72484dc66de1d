"""The picture of what int8 costs in each part of a model, and the words and rows beside it."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from compress.benchmark.figures import Entry, SensitivityEntry
from compress.report import formats
from compress.report.figure import COLOURS, SERIES, axes, draw

_MEASURES = {
    "loss": "rise of the loss with this part alone in int8",
    "hessian": "mean trace of the Hessian × squared error of the weights (HAWQ-v2)",
}


def sensitivities(entry: Entry, *, narrow: bool = False) -> str:
    """Return the picture, a bar for each part, or nothing where none was measured."""
    found = entry.sensitivity
    if found is None or not found.parts:
        return ""
    width, height = 360 if narrow else 760, 60 + 20 * len(found.parts)

    def paint(figure: Figure) -> None:
        left = 130
        panel = axes(figure, left, 10, width - left - 16, height - 54)
        places = range(len(found.parts))
        colours = [SERIES[1] if part.precision == "fp32" else SERIES[0] for part in found.parts]
        panel.barh(places, [part.sensitivity for part in found.parts], color=colours, height=0.7)
        panel.axvline(0, color=COLOURS["rule"], lw=1)
        panel.set_yticks(places, [formats.shorten(part.part, 18) for part in found.parts])
        panel.set_ylim(len(found.parts) - 0.4, -0.6)  # the first part above
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        panel.tick_params(length=0)
        panel.set_xlabel("sensitivity", labelpad=6)

    name = f"sensitivity-{entry.name}" + ("-narrow" if narrow else "")
    return draw(name, f"{entry.name}: sensitivity of each part", width, height, paint)


def in_words(found: SensitivityEntry) -> str:
    """Return how it was measured and the result."""
    spared = [part.part for part in found.parts if part.precision == "fp32"]
    left = found.steps[-1].drop if found.steps else 0.0
    metric, rows = formats.metric_name(found.metric), f"{found.rows:,} validation rows"
    return (
        f"Sensitivity: {_MEASURES.get(found.order, found.order)}. In fp32: {', '.join(spared) or 'nothing'}. "
        f"With that, {metric} on {rows} falls by {left:.4f}; {found.max_drop or 0:g} was allowed. These rows made the "
        "choice, so the test rows' figures are the ones to quote."
    )


def rows(found: SensitivityEntry) -> list[list[str]]:
    """Return a row for each part: name, sensitivity, drop of the metric, precision."""
    return [
        [
            part.part,
            formats.significant(part.sensitivity, 3),
            formats.MISSING if part.drop is None else f"{part.drop:+.4f}",
            part.precision,
        ]
        for part in found.parts
    ]


HEADINGS = ("Part", "Sensitivity", "Drop alone", "Precision")
