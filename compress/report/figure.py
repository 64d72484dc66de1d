"""Drawing: matplotlib figures as small inline SVG that takes its colours and font from the page.

Colours are drawn as stand-ins and replaced by CSS variables, so that one figure serves light and dark pages. Nothing
global is changed: the object API only, settings in a context, ids from a fixed salt and the figure's own name.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# name of the page's CSS variable -> the light page's colour; distinct, since it is how a colour is recognised
COLOURS = {
    "ink": "#1d2126",
    "muted": "#5f6770",
    "rule": "#d9dde1",
    "paper": "#fffffe",
    "teacher": "#00735a",
    "artifact": "#0063b1",
    "baseline": "#b34700",
    "stage": "#7d6b99",
    "series1": "#0063b2",
    "series2": "#b34701",
    "series3": "#00735b",
    "series4": "#a2417f",
    "series5": "#7a6000",
    "series6": "#5f6771",
}
SERIES = [COLOURS[f"series{number}"] for number in range(1, 7)]
DASHES = ["-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (8, 3))]
TEXT = 12.0  # pixels
_DRAWING: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "compress",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same layout everywhere; the page's font is shown
    "font.size": TEXT,
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.8,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["rule"],
    "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
_LINKS = ("href", "{http://www.w3.org/1999/xlink}href")


def draw(name: str, title: str, width: int, height: int, paint: Callable[[Figure], None]) -> str:
    """Return what ``paint`` draws on a figure of ``width`` × ``height`` pixels, as an <svg> element for HTML."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_DRAWING)  # type: ignore[arg-type,unused-ignore]  # newer stubs list all names
        warnings.filterwarnings("ignore", message="Glyph")  # only the layout uses this font
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), name, title)


def axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place given in pixels from the top left."""
    wide, high = figure.get_size_inches() * 72
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def _inline(svg: str, name: str, title: str) -> str:
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # HTML knows svg by itself
        attributes = {key.rpartition("}")[2] if key in _LINKS else key: value for key, value in element.items()}
        element.attrib.clear()
        element.attrib.update({key: _attribute(key, value, name) for key, value in attributes.items()})
    view = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"viewBox": view, "role": "img", "aria-label": title})
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True).strip()


def _attribute(key: str, value: str, name: str) -> str:
    """Make ids unique in a page, colours the page's, the font the page's, and coordinates short."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1)
    if key in ("d", "x", "y", "transform", "width", "height", "points"):
        return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-", 1)
    if key == "style":
        value = re.sub(r"font: (?:[a-z]+ )*(?:(\d{3}) )?([\d.]+)px [^;]*", _font, value)  # matplotlib before 3.9
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
        value = re.sub(r"(url\(#)", rf"\1{name}-", value)
        for variable, colour in COLOURS.items():
            value = value.replace(colour, f"var(--{variable}, {colour})")
    return value


def _font(found: re.Match[str]) -> str:
    weight = f"; font-weight: {found[1]}" if found[1] else ""
    return f"font-size: {found[2]}px{weight}"
