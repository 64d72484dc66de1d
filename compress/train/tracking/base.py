"""What all trackers have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

Points = Sequence[Mapping[str, float]]
"""A training curve: points with their ``step`` and what was measured there."""


class Tracker(Protocol):
    """Where curves and figures of one run go."""

    def callback(self, title: str) -> Any:
        """Return transformers' callback that sends the curve of a training."""
        ...

    def curve(self, title: str, points: Points) -> None:
        """Send the curve of a training that ended earlier."""
        ...

    def result(self, figures: Mapping[str, float], table: str) -> None:
        """Send the figures of all models, by "model/figure", and their table as Markdown."""
        ...

    def close(self, status: str) -> None:
        """End: "FINISHED", "FAILED" or "KILLED"."""
        ...


def by_step(points: Points) -> Iterator[tuple[dict[str, float], int]]:
    """Yield what was measured at each point, and its step."""
    for point in points:
        yield {name: value for name, value in point.items() if name != "step"}, int(point["step"])


def safe(name: str) -> str:
    """Return a name with only such signs as all trackers take."""
    return re.sub(r"[^0-9A-Za-z_\-. :/]", "_", name)
