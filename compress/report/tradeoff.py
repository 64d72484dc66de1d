"""The picture of accuracy against latency, for one run or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.benchmark.figures import Entry
from compress.report import formats
from compress.report.columns import place
from compress.report.differences import Labelled, chosen
from compress.report.figure import COLOURS, SERIES, TEXT, axes, draw
from compress.report.labels import Box, place_labels
from compress.report.schema import Report

_MARKERS = {"teacher": "D", "stage": "o", "artifact": "o", "baseline": "^"}
_SERIES_MARKERS = "osD^vP"
LEAST_POINTS, LEAST_SHARE = 0.02, 0.05  # least height of the picture: of shares, and as a share of other metrics


@dataclass(frozen=True)
class Point:
    """A model in the picture."""

    name: str
    x: float
    y: float
    interval: tuple[float, float] | None
    colour: str
    marker: str
    hollow: bool = False
    ringed: bool = False  # recommended
    rank: int = 0  # the lower, the sooner its name chooses a place


def tradeoff(report: Report, *, narrow: bool = False) -> str:
    """Return one run's picture, or nothing when fewer than two models have both figures."""
    points = []
    for entry in report.entries:
        if entry is report.student and entry.group == "artifact" and _same(report, entry):
            continue
        role = "teacher" if entry is report.reference else entry.group
        point = _point(report, entry, entry.name, COLOURS[role], _MARKERS[role], hollow=role == "stage")
        if point:
            points.append(point)
    return picture("tradeoff", points, report.main_metric, place(report.place), narrow=narrow)


def tradeoff_of_runs(reports: Labelled, *, narrow: bool = False) -> str:
    """Return the picture of several runs' artifacts, a colour and a marker for each run."""
    points = []
    for number, (label, report) in enumerate(reports):
        colour, marker = SERIES[number % len(SERIES)], _SERIES_MARKERS[number % len(_SERIES_MARKERS)]
        alone = [report.student] if report.student else []
        for entry in [*report.artifacts] or alone:
            ships = entry is chosen(report)
            name = f"{formats.shorten(label)}: {entry.name}" if ships else entry.name
            point = _point(report, entry, name, colour, marker, hollow=not ships)
            if point:
                points.append(point)
    if not reports:
        return ""
    first = reports[0][1]
    return picture("runs", points, first.main_metric, place(first.place), narrow=narrow)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (latency, metric) points that no other beats in both, fastest first."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or y > found[-1][1]:
            found.append((x, y))
    return found


def _same(report: Report, student: Entry) -> bool:
    """Tell whether the PyTorch student is in the picture already, as the model after the last stage."""
    return bool(report.stages) and report.milliseconds(report.stages[-1]) == report.milliseconds(student)


def _point(report: Report, entry: Entry, name: str, colour: str, marker: str, *, hollow: bool) -> Point | None:
    x, y = report.milliseconds(entry), report.metric(entry)
    if x is None or y is None:
        return None
    recommended = entry is report.best
    order = ["teacher", "artifact", "baseline", "stage"]
    role = "teacher" if entry is report.reference else entry.group
    rank = -1 if recommended else order.index(role)
    return Point(formats.shorten(name, 32), x, y, report.interval(entry), colour, marker, hollow, recommended, rank)


def picture(name: str, points: list[Point], of: str, where: str, *, narrow: bool) -> str:
    """Return the picture of points, ``of`` being the metric and ``where`` it was timed; nothing for fewer than two."""
    if len(points) < 2:
        return ""
    width, height = (360, 400) if narrow else (760, 430)
    metric = formats.metric_title(of) + (", %" if formats.is_share(of) else "")

    def paint(figure: Figure) -> None:
        panel = axes(figure, 44, 26, width - 44 - 12, height - 26 - 44)
        _limits(panel, points, formats.is_share(of))
        _ticks(panel, of, narrow=narrow)
        more = "" if narrow else f", one row at its real length, {where}"
        panel.set_xlabel(f"median latency, ms (log scale){more}", labelpad=6)
        figure.text(6 / width, 1 - 14 / height, metric, color=COLOURS["muted"], va="center")
        _paint(panel, sorted(points, key=lambda point: point.rank))

    title = f"{metric} against latency of {', '.join(point.name for point in points)}"
    return draw(name + ("-narrow" if narrow else ""), title, width, height, paint)


def _paint(panel: Axes, points: list[Point]) -> None:
    edge = frontier([(point.x, point.y) for point in points])
    xs, ys = [x for x, _ in edge], [y for _, y in edge]
    panel.step([*xs, panel.get_xlim()[1]], [*ys, ys[-1]], where="post", color=COLOURS["muted"], lw=1.2, ls=(0, (4, 3)))
    for point in points:
        if point.interval:
            panel.vlines(point.x, *point.interval, color=point.colour, lw=1.4, alpha=0.45)
        face = COLOURS["paper"] if point.hollow else point.colour
        panel.plot(point.x, point.y, point.marker, ms=8, mfc=face, mec=point.colour, mew=1.8)
        if point.ringed:
            panel.plot(point.x, point.y, "o", ms=16, mfc="none", mec=point.colour, mew=1.6)
    pixels = [tuple(map(float, panel.transData.transform((point.x, point.y)))) for point in points]
    lines = [_whisker(panel, point) for point in points if point.interval]
    lines += _dashes(panel, [*edge, (panel.get_xlim()[1], ys[-1])])
    frame = Box(*panel.bbox.extents)
    names = [(x, y, point.name) for (x, y), point in zip(pixels, points, strict=True)]
    places = place_labels(names, [10 if point.ringed else 6 for point in points], frame, lines, TEXT)
    for point, label in zip(points, places, strict=True):
        panel.annotate(
            point.name,
            (point.x, point.y),
            (label.x, label.y),
            textcoords="offset pixels",
            ha="center",
            va="center_baseline",
            color=point.colour,
            fontweight="bold" if point.ringed else "normal",
            arrowprops={"arrowstyle": "-", "color": COLOURS["muted"], "lw": 0.7, "shrinkB": 5} if label.far else None,
        )


def _whisker(panel: Axes, point: Point) -> Box:
    low, high = point.interval or (point.y, point.y)
    (left, bottom), (_, top) = (panel.transData.transform((point.x, y)) for y in (low, high))
    return Box(left - 3, bottom, left + 3, top)


def _dashes(panel: Axes, edge: list[tuple[float, float]]) -> list[Box]:
    """Return the frontier's level parts as boxes."""
    pixels = [panel.transData.transform(point) for point in edge]
    return [Box(left, level - 2, right, level + 2) for (left, level), (right, _) in pairwise(pixels)]


def _limits(panel: Axes, points: list[Point], share: bool) -> None:
    xs = [point.x for point in points]
    ys = [y for point in points for y in (point.y, *(point.interval or ()))]
    panel.set_xscale("log")
    room = max(math.log10(max(xs) / min(xs)), 0.3) * 0.14
    panel.set_xlim(min(xs) * 10**-room, max(xs) * 10**room)
    # in less height, figures of three digits could not tell the ticks apart
    least = LEAST_POINTS if share else LEAST_SHARE * (max(map(abs, ys)) or 1)
    room = max((max(ys) - min(ys)) * 0.08, (least - (max(ys) - min(ys))) / 2)
    panel.set_ylim(min(ys) - room, max(ys) + room)


def _ticks(panel: Axes, metric: str, *, narrow: bool) -> None:
    low, high = panel.get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = math.log10(high / low)
    fine = (1, 2, 3, 4, 5, 6, 8) if decades < 1 else (1, 2, 5) if decades < (2.6 if narrow else 3) else (1,)
    found = [step * 10.0**power for power in powers for step in fine if low <= step * 10.0**power <= high]
    panel.set_xticks(found, [f"{tick:,.10g}" for tick in found])
    panel.set_xticks([], minor=True)
    share = formats.is_share(metric)
    panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}" if share else f"{value:.3g}")
    panel.tick_params(length=0)
