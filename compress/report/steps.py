"""What each step did by itself: its model beside the one that it was given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from compress.report.records import Entry, Report


@dataclass(frozen=True)
class Step:
    """One step's own effect on the figures; None where either side was not measured."""

    entry: Entry
    before: Entry
    latency: float | None  # ratio of the medians quoted first, at one place
    size: float | None  # ratio
    metric: float | None  # difference of the main metric
    chance: bool  # whether that difference is smaller than the 95 % interval reaches to either side


def steps(report: Report) -> Iterator[Step]:
    """Yield each stage against the one before it, then each artifact against the model after the last stage."""
    for before, stage in pairwise(report.stages):
        yield _step(report, before, stage)
    for artifact in report.artifacts if report.stages else []:
        last = report.stages[-1]
        if artifact.name != "student":  # the same model as the last stage's
            yield _step(report, last, artifact)


def _step(report: Report, before: Entry, entry: Entry) -> Step:
    old, new = before.headline(report.place), entry.headline(report.place)
    comparable = old is not None and new is not None and old.place == new.place
    metrics = report.metric(before), report.metric(entry)
    difference = metrics[1] - metrics[0] if metrics[0] is not None and metrics[1] is not None else None
    interval = report.interval(entry)
    return Step(
        entry=entry,
        before=before,
        latency=_ratio(new.median_ms, old.median_ms) if comparable and new and old else None,
        size=_ratio(entry.size_mib, before.size_mib),
        metric=difference,
        chance=bool(interval and difference is not None and abs(difference) < (interval[1] - interval[0]) / 2),
    )


def _ratio(new: float | None, old: float | None) -> float | None:
    return new / old if new is not None and old else None
