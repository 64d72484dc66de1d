"""Placing names beside points so that they do not lie on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

GLYPH = 0.58  # width of a character over the text's size, on the wide side for common fonts
_DIRECTIONS = [(1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]
_DISTANCES = (3, 14, 28, 46, 70)  # from a marker to its name


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Return the area shared with ``other``."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.top, other.top) - max(self.bottom, other.bottom)
        return wide * high if wide > 0 and high > 0 else 0.0


@dataclass(frozen=True)
class Placed:
    """Where a name goes, as an offset of its middle from its point; far ones need a line to it."""

    x: float
    y: float
    far: bool


def place_labels(
    points: Sequence[tuple[float, float, str]],
    radii: Sequence[float],
    frame: Box,
    obstacles: Sequence[Box],
    size: float,
) -> list[Placed]:
    """Return a place for each (x, y, name) in pixels, the first choosing first; ``radii`` are the markers'."""
    taken: list[Box] = []
    markers = [Box(x - r, y - r, x + r, y + r) for (x, y, _), r in zip(points, radii, strict=True)]
    placed = []
    for (x, y, name), radius in zip(points, radii, strict=True):
        half_width, half_height = len(name) * GLYPH * size / 2, size * 0.62
        best: tuple[float, Placed, Box] | None = None
        for rank, (distance, (right, up)) in enumerate((d, way) for d in _DISTANCES for way in _DIRECTIONS):
            reach = (radius + distance) * (0.7 if right and up else 1)
            dx, dy = right * (reach + half_width), up * (reach + half_height * (not right or up != 0))
            box = Box(x + dx - half_width, y + dy - half_height, x + dx + half_width, y + dy + half_height)
            area = 4 * half_width * half_height
            cost = 30 * (area - box.overlap(frame)) + 40 * sum(map(box.overlap, taken))
            cost += 8 * sum(map(box.overlap, markers)) + sum(map(box.overlap, obstacles)) + 2 * distance + rank
            if best is None or cost < best[0]:
                best = cost, Placed(dx, dy, distance > _DISTANCES[0]), box
        if best is not None:
            placed.append(best[1])
            taken.append(best[2])
    return placed


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return heights moved apart to at least ``gap``, order kept, each cluster about its middle."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    clusters: list[tuple[float, list[int]]] = []  # middle, members from low to high
    for index in order:
        clusters.append((heights[index], [index]))
        while len(clusters) > 1:
            (low, below), (high, above) = clusters[-2:]
            if high - (len(above) - 1) * gap / 2 - (low + (len(below) - 1) * gap / 2) >= gap:
                break
            members = below + above
            clusters[-2:] = [(sum(heights[member] for member in members) / len(members), members)]
    result = [0.0] * len(heights)
    for middle, members in clusters:
        for rank, member in enumerate(members):
            result[member] = middle + (rank - (len(members) - 1) / 2) * gap
    return result
