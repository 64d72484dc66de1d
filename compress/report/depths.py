"""The picture of a model's metric against its depth, cut without training again."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.report import formats
from compress.report.figure import COLOURS, DASHES, SERIES, TEXT, axes, draw
from compress.report.labels import GLYPH, spread
from compress.report.schema import Report

_APART = 0.07  # layers, between the whiskers of two models at one depth
_MARKERS = "os^DvP"

Line = list[tuple[int, float, tuple[float, float] | None]]  # (depth, metric, interval)


def depths(report: Report, *, narrow: bool = False) -> str:
    """Return the picture, a line for each model, or nothing where none was measured at two depths."""
    metric = report.main_metric
    scale = 100 if formats.is_share(metric) else 1
    lines: dict[str, Line] = {}
    for curve in report.depths:
        found = [
            (len(cut.layers), cut.metrics[metric], cut.interval.get(metric))
            for cut in curve.cuts
            if metric in cut.metrics
        ]
        if len(found) > 1:
            lines[formats.shorten(curve.label, 32)] = found
    if not lines:
        return ""
    width, height = (360, 300) if narrow else (760, 300)
    title = formats.metric_title(metric) + (", %" if formats.is_share(metric) else "")
    longest = max(map(len, lines)) * TEXT * GLYPH

    def paint(figure: Figure) -> None:
        above = 26 + (TEXT + 4) * len(lines) if narrow else 26  # names go above the lines on a narrow screen
        panel = axes(figure, 44, above, width - 44 - (12 if narrow else longest + 16), height - above - 44)
        figure.text(6 / width, 1 - 14 / height, title, color=COLOURS["muted"], va="center")
        _paint(panel, lines, scale)
        panel.set_xlabel("layers left", labelpad=6)
        _name(figure, panel, lines, scale, narrow=narrow)

    return draw("depths" + ("-narrow" if narrow else ""), f"{title} against depth", width, height, paint)


def _paint(panel: Axes, lines: dict[str, Line], scale: float) -> None:
    for number, line in enumerate(lines.values()):
        colour, shift = SERIES[number % len(SERIES)], (number - (len(lines) - 1) / 2) * _APART
        xs, ys = [depth + shift for depth, _, _ in line], [scale * value for _, value, _ in line]
        for x, (_, _, interval) in zip(xs, line, strict=True):
            if interval:
                panel.vlines(x, scale * interval[0], scale * interval[1], color=colour, lw=1.4, alpha=0.45)
        dash, marker = DASHES[number % len(DASHES)], _MARKERS[number % len(_MARKERS)]
        panel.plot(xs, ys, color=colour, ls=dash, lw=1.6, marker=marker, ms=5)
    deepest = max(depth for line in lines.values() for depth, _, _ in line)
    panel.set_xticks(range(1, deepest + 1) if deepest <= 12 else range(2, deepest + 1, 2))
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    panel.tick_params(length=0)


def _name(figure: Figure, panel: Axes, lines: dict[str, Line], scale: float, *, narrow: bool) -> None:
    """Write each line's name at its deep end, or above all lines where there is no room."""
    panel.get_ylim()  # settles the limits, on which the next line relies
    furthest = (len(lines) - 1) / 2 * _APART
    ends = [(line[-1][0] + furthest, scale * line[-1][1]) for line in lines.values()]
    heights = [float(panel.transData.transform(end)[1]) for end in ends]
    places = spread(heights, TEXT + 2)
    wide, high = figure.get_size_inches() * 72
    for number, (name, end) in enumerate(zip(lines, ends, strict=True)):
        colour = SERIES[number % len(SERIES)]
        if narrow:
            figure.text(44 / wide, 1 - (32 + (TEXT + 4) * number) / high, name, color=colour, va="center")
        else:
            offset = (10, places[number] - heights[number])
            panel.annotate(
                name, end, offset, textcoords="offset pixels", va="center_baseline", color=colour, annotation_clip=False
            )
