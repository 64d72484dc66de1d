"""The picture of what each step did by itself to latency, size and the main metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.report import formats
from compress.report.figure import COLOURS, TEXT, axes, draw
from compress.report.formats import shorten
from compress.report.labels import GLYPH
from compress.report.schema import Report
from compress.report.steps import Step, steps

_ROW, _GAP, _TITLE = 24, 10, 34  # pixels: a bar, between stages and artifacts, above a panel


@dataclass(frozen=True)
class Bar:
    """One step's change of one figure. A pale one may be chance."""

    value: float | None
    text: str
    pale: bool = False


@dataclass(frozen=True)
class Panel:
    """The changes of one figure; ``good`` is the sign of an improvement."""

    title: str
    good: int
    bars: list[Bar]


def contributions(report: Report, *, narrow: bool = False) -> str:
    """Return bars of each step's own changes, or nothing without steps."""
    found = list(steps(report))
    panels = [panel for panel in _panels(report, found) if any(bar.value is not None for bar in panel.bars)]
    if not panels:
        return ""
    artifacts = [step.entry.group == "artifact" for step in found]
    rows = [number * _ROW + _GAP * late for number, late in enumerate(artifacts)]
    high = rows[-1] + _ROW
    width = 360 if narrow else 760
    left = min(max(len(shorten(step.entry.name)) for step in found) * TEXT * GLYPH + 14, 0.36 * width)
    wide = width - left if narrow else (width - left) / len(panels)
    height = (high + _TITLE) * (len(panels) if narrow else 1)

    def paint(figure: Figure) -> None:
        for number, content in enumerate(panels):
            corner = (left, number * (high + _TITLE)) if narrow else (left + number * wide, 0)
            panel = axes(figure, corner[0] + 6, corner[1] + _TITLE - 6, wide - 12, high)
            panel.set_ylim(high - _ROW / 2, -_ROW / 2)
            _paint(panel, content, rows)
            shown = narrow or number == 0
            panel.set_yticks(rows, [shorten(step.entry.name) if shown else "" for step in found], color=COLOURS["ink"])
            for label, step in zip(panel.get_yticklabels(), found, strict=True):
                label.set_fontweight("bold" if step.entry is report.best else "normal")

    title = "Each step's own change of " + ", ".join(panel.title.lower() for panel in panels)
    return draw("steps" + ("-narrow" if narrow else ""), title, width, height, paint)


def _panels(report: Report, found: Sequence[Step]) -> list[Panel]:
    metric = report.main_metric
    unit = ", points" if formats.is_share(metric) else ""
    scores = [Bar(step.metric, formats.points(metric, step.metric), step.chance) for step in found]
    return [
        Panel("Latency", -1, [_ratio(step.latency) for step in found]),
        Panel("Size", -1, [_ratio(step.size) for step in found]),
        Panel(formats.metric_title(metric) + unit, 1, scores),
    ]


def _ratio(ratio: float | None) -> Bar:
    return Bar(None if ratio is None else ratio - 1, formats.change(ratio))


def _paint(panel: Axes, content: Panel, rows: Sequence[float]) -> None:
    known = [bar.value for bar in content.bars if bar.value is not None]
    low, high = min(0.0, *known), max(0.0, *known)
    reach = (high - low) or 1.0
    room, edge = 0.42 * reach, 0.04 * reach  # room for the figures at the ends
    panel.set_xlim(low - (room if low < 0 else edge), high + (room if high > 0 or low == 0 else edge))
    for row, bar in zip(rows, content.bars, strict=True):
        value = bar.value or 0.0
        colour = COLOURS["artifact" if value * content.good > 0 else "baseline"]
        panel.barh(row, value, height=0.56 * _ROW, color=colour, alpha=0.4 if bar.pale else 1)
        left = value < 0 or (value == 0 and low < 0)
        panel.annotate(
            bar.text,
            (value, row),
            (-5 if left else 5, 0),
            textcoords="offset pixels",
            ha="right" if left else "left",
            va="center_baseline",
            color=COLOURS["ink"],
        )
    panel.axvline(0, color=COLOURS["muted"], lw=0.9)
    panel.set_title(content.title, loc="left", fontsize=TEXT, color=COLOURS["muted"], pad=7)
    panel.grid(visible=False)
    panel.set_xticks([])
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
