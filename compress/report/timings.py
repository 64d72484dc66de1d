"""The latency grid: models against batch and tokens, one grid for each device and number of threads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from compress.benchmark.figures import Latency
from compress.report.columns import place
from compress.report.schema import Report


@dataclass(frozen=True)
class Cell:
    """One timing beside the reference's under the same condition."""

    latency: Latency
    speedup: float | None

    @property
    def heat(self) -> float:
        """How far from the reference, in [-1, 1]; ±1 is eight times faster or slower."""
        return 0.0 if not self.speedup else max(-1.0, min(1.0, math.log2(self.speedup) / 3))


@dataclass(frozen=True)
class Grid:
    """Timings at one place. Rows have a cell or None for each column."""

    place: str
    columns: list[tuple[str, str]]  # batch and tokens, in words
    rows: list[tuple[str, list[Cell | None]]]  # the model's name, with the variant where it has several


def grids(report: Report) -> list[Grid]:
    """Return one grid for each device and number of threads that was timed, in order of appearance."""
    places = dict.fromkeys(timing.place for entry in report.entries for timing in entry.latency)
    return [_grid(report, where) for where in places]


def _grid(report: Report, where: tuple[str, int | None]) -> Grid:
    teacher: dict[tuple[Any, ...], float | None] = {}
    for timing in report.reference.latency if report.reference else ():
        teacher.setdefault(timing.condition, timing.median_ms)  # of several variants the first is the reference
    rows: list[tuple[str, dict[tuple[Any, ...], Latency]]] = []
    for entry in report.entries:
        here = [timing for timing in entry.latency if timing.place == where]
        for variant in dict.fromkeys(timing.variant for timing in here):
            name = f"{entry.name}, {variant}" if variant else entry.name
            rows.append((name, {timing.condition: timing for timing in here if timing.variant == variant}))
    conditions = sorted({key: found[key] for _, found in rows for key in found}.values(), key=_order)
    table = []
    for name, found in rows:
        cells = [_cell(found.get(timing.condition), teacher.get(timing.condition)) for timing in conditions]
        table.append((name, cells))
    return Grid(place(where), [(_batch(timing), _tokens(timing)) for timing in conditions], table)


def _cell(timing: Latency | None, teacher_ms: float | None) -> Cell | None:
    if timing is None or timing.median_ms is None:
        return None
    return Cell(timing, teacher_ms / timing.median_ms if teacher_ms and timing.median_ms > 0 else None)


def _order(timing: Latency) -> tuple[bool, bool, bool, int, int, str]:
    number = timing.tokens if isinstance(timing.tokens, int) else 0
    return (
        timing.tokens != "real",
        timing.tokenization,
        bool(timing.copies),
        timing.batch or 0,
        number,
        str(timing.tokens),
    )


def _batch(timing: Latency) -> str:
    return f"batch {timing.batch}" if timing.batch is not None else "batch not recorded"


def _tokens(timing: Latency) -> str:
    length = "real lengths" if timing.tokens == "real" else f"{timing.tokens} tokens" if timing.tokens else "any length"
    return length + (" + tokenizer" if timing.tokenization else "") + (" + copies" if timing.copies else "")
