"""What each step did by itself: its model beside the one that it was given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from compress.benchmark.figures import Entry
from compress.report.schema import Report
from compress.tasks.paired import Difference


@dataclass(frozen=True)
class Step:
    """One step's own effect on the figures; None where either side was not measured."""

    entry: Entry
    before: Entry
    latency: float | None  # ratio of the medians quoted first, at one place
    size: float | None  # ratio
    metric: float | None  # difference of the main metric
    paired: Difference | None  # the same, with its interval and test; None in reports that were written without

    @property
    def chance(self) -> bool:
        """Whether the rows do not show that the metric changed."""
        return self.metric is not None and not (self.paired and self.paired.clear)


def steps(report: Report) -> Iterator[Step]:
    """Yield each stage against the one before it, then each artifact against the model after the last stage."""
    for before, stage in pairwise(report.stages):
        yield _step(report, before, stage)
    for artifact in report.artifacts if report.stages else []:
        last = report.stages[-1]
        if artifact.name != "student":  # the same model as the last stage's
            yield _step(report, last, artifact, against="student")


def _step(report: Report, before: Entry, entry: Entry, against: str | None = None) -> Step:
    old, new = before.headline(report.place), entry.headline(report.place)
    comparable = old is not None and new is not None and old.place == new.place
    metrics = report.metric(before), report.metric(entry)
    difference = metrics[1] - metrics[0] if metrics[0] is not None and metrics[1] is not None else None
    return Step(
        entry=entry,
        before=before,
        latency=_ratio(new.median_ms, old.median_ms) if comparable and new and old else None,
        size=_ratio(entry.size_mib, before.size_mib),
        metric=difference,
        paired=entry.differences.get(against or before.name),
    )


def _ratio(new: float | None, old: float | None) -> float | None:
    return new / old if new is not None and old else None
