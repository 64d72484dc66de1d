"""Training curves of a model: its losses, and the main metric on the validation rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.benchmark.figures import Entry
from compress.report import formats
from compress.report.figure import COLOURS, DASHES, SERIES, TEXT, axes, draw
from compress.report.labels import GLYPH, spread
from compress.report.schema import Report

Curve = list[tuple[float, float]]  # (step, value)

_POINTS = 150  # at most, of a training curve
_NO_LOSS = ("step", "epoch", "validation", "grad_norm", "learning_rate", "train_", "eval_")  # starts of names


def curves(report: Report, entry: Entry, *, narrow: bool = False) -> str:
    """Return a model's training curves: its losses, and the main metric on the validation rows."""
    losses = _losses(entry.curves)
    validation = _validation(entry.curves, report.main_metric)
    panels: list[Callable[[Axes], None]] = []
    if losses:
        panels.append(lambda panel: _lines(panel, "loss", losses))
    if len(validation) > 1:
        share = formats.is_share(report.main_metric)
        title = f"validation {formats.metric_name(report.main_metric)}" + (", %" if share else "")
        panels.append(lambda panel: _lines(panel, title, {"": validation}, scale=100 if share else 1, marked=True))
    if not panels:
        return ""
    width, high = (360, 170) if narrow else (760, 190)
    across = 1 if narrow else 2
    wide = width / across
    block = high + 58
    height = block * (len(panels) if narrow else 1)
    longest = max((len(name) for name in losses), default=0) * TEXT * GLYPH + 12

    def paint(figure: Figure) -> None:
        for number, fill in enumerate(panels):
            left, top = (0, number * block) if narrow else (number * wide, 0)
            panel = axes(figure, left + 46, top + 24, wide - 46 - min(max(longest, 20), 0.36 * wide), high)
            fill(panel)
            panel.set_xlabel("step", labelpad=4)
            panel.tick_params(length=0)

    identity = f"curves-{report.entries.index(entry)}" + ("-narrow" if narrow else "")
    return draw(identity, f"Training curves of {entry.name}", width, height, paint)


def _losses(rows: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    found: dict[str, Curve] = {}
    for step, row in _clocked(rows):
        for name, value in row.items():
            if not name.startswith(_NO_LOSS) and _is_number(value):
                found.setdefault(name, []).append((step, float(value)))
    if "loss" in found and len(found) == 2:  # one component only: it is the total, scaled
        found = {"loss": found["loss"]}
    return {formats.shorten(name): _thin(curve) for name, curve in found.items() if len(curve) > 1}


def _validation(rows: Sequence[Mapping[str, Any]], metric: str) -> Curve:
    """Return the main metric, which is ``validation_<metric>``, or ``validation`` where there is one only."""
    found = ((step, row.get(f"validation_{metric}", row.get("validation"))) for step, row in _clocked(rows))
    return [(step, float(value)) for step, value in found if _is_number(value)]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _clocked(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """Yield rows with their steps, counted on where training began again (pruning in rounds)."""
    before, last = 0.0, 0.0
    for row in rows:
        if _is_number(row.get("step")):
            before += last if row["step"] < last else 0
            last = row["step"]
            yield before + last, row


def _thin(curve: Curve) -> Curve:
    """Return means over equal runs of points, so that a long curve stays small and readable."""
    size = math.ceil(len(curve) / _POINTS)
    parts = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _lines(panel: Axes, title: str, lines: Mapping[str, Curve], *, scale: float = 1, marked: bool = False) -> None:
    """Draw curves with their names at their ends."""
    ends = []
    for number, (name, curve) in enumerate(lines.items()):
        total = name == "loss"
        colour = COLOURS["ink"] if total else SERIES[number % len(SERIES)]
        dash = "-" if total or marked else DASHES[number % len(DASHES)]
        ys = [scale * y for _, y in curve]
        panel.plot([x for x, _ in curve], ys, color=colour, ls=dash, lw=1.6, marker="o" if marked else "", ms=4.5)
        ends.append((curve[-1][0], ys[-1], name, colour))
    values = [scale * y for curve in lines.values() for _, y in curve]
    if min(values) > 0 and max(values) > 30 * min(values) and not marked:
        panel.set_yscale("log")
        panel.minorticks_off()
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    panel.locator_params(axis="x", nbins=5)
    panel.set_title(title, loc="left", fontsize=TEXT, color=COLOURS["muted"], pad=7)
    panel.get_ylim()  # settles the limits, on which the next line relies
    heights = [float(panel.transData.transform((x, y))[1]) for x, y, _, _ in ends]
    shifts = spread(heights, TEXT + 2)
    for (x, y, name, colour), height, moved in zip(ends, heights, shifts, strict=True):
        panel.annotate(
            name,
            (x, y),
            (7, moved - height),
            textcoords="offset pixels",
            va="center_baseline",
            color=colour,
            annotation_clip=False,
        )
