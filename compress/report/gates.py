"""What validation rows said of artifacts: in sentences, and in a table of those that were rejected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compress.benchmark.figures import Entry, RejectedEntry
from compress.report import formats
from compress.report.schema import Report
from compress.tasks.gate import POINT, Gate

TITLE = "Rejected"
HEADINGS = ["Artifact", "Drop", "95 % bound", "Allowed", "Rows", "Costliest parts", "Instead"]
COST_HEADINGS = ["Part", "Rise of the loss", "Drop, points"]
NAMED = 3  # parts that a sentence names


def in_words(name: str, gate: Gate) -> str:
    """Return what the rows say of an artifact, as a line for the terminal."""
    if gate.outcome == "holds":
        return f"{name}: {_fall(gate)}{_bound(gate)}; {_allowed(gate)}"
    if gate.outcome == "exceeds":
        return f"{name} is rejected: {_reason(gate)}"
    return f"{name}: {gate.rows:,} validation rows are too few to tell{_bound(gate)}; {_allowed(gate)}"


def why(rejected: RejectedEntry) -> str:
    """Return why an artifact was rejected, which parts cost most, and what was kept in its place."""
    parts = [f"{_reason(rejected.gate)}."]
    alone = f"alone in {rejected.precision or 'int8'}"
    if named := ", ".join(
        f"{cost.part} ({_cost(cost.drop, cost.loss)})" for cost in rejected.costs[:NAMED] if cost.loss > 0
    ):
        parts.append(f"The costliest parts, each {alone}: {named}.")
    elif rejected.costs:
        parts.append(f"No part loses anything {alone}: only together they do.")
    elif rejected.why_no_costs:
        parts.append(f"Which parts cost most is not known: {rejected.why_no_costs}.")
    parts.append(f"Kept in its place: {rejected.instead}." if rejected.instead else "No gentler form was kept.")
    return " ".join(parts)


def findings(report: Report) -> Iterator[str]:
    """Yield which artifacts, beside the recommended one, too few rows were there for."""
    unclear = [a for a in report.artifacts if a.gate and a.gate.outcome == "too few rows" and a is not report.best]
    if unclear:
        yield too_few(unclear)


def too_few(entries: Sequence[Entry]) -> str:
    """Return for which artifacts, all with a gate, there are too few rows, and how many it would take."""
    judged = [entry.gate for entry in entries if entry.gate]
    names, gate = [entry.name for entry in entries], max(judged, key=lambda gate: gate.bound)
    which = f"{', '.join(names[:-1])} and {names[-1]} lose" if names[1:] else f"{names[0]} loses"
    needed = max(gate.needed for gate in judged)
    enough = f"about {formats.count(needed)} could" if needed else "no number of rows could"
    return (
        f"{gate.rows:,} validation rows are too few to show that {which} at most {_points(gate.max_drop)} of "
        f"{formats.metric_name(gate.metric)}{_bound(gate)}: {enough}. Give more (data.validation, "
        "data.validation_share), or look at the interval on the test rows before you ship."
    )


def rows(report: Report) -> list[list[str]]:
    """Return a line for each rejected artifact."""
    return [
        [
            rejected.name,
            _number(rejected.gate.drop),
            _beside_allowed(rejected.gate),
            _number(rejected.gate.max_drop),
            formats.count(rejected.gate.rows),
            ", ".join(cost.part for cost in rejected.costs[:NAMED]) or formats.MISSING,
            rejected.instead or formats.MISSING,
        ]
        for rejected in report.rejected
    ]


def explained(report: Report) -> str:
    """Return what the table shows."""
    metric = formats.metric_name(report.main_metric)
    return (
        f"These artifacts lose more {metric} than max_drop allows, or the rows that could show otherwise do not. They "
        "are under rejected/, and nothing recommends them. Points, against the student, on validation rows."
    )


def costs(rejected: RejectedEntry) -> list[list[str]]:
    """Return a line for each part of a rejected artifact."""
    return [
        [
            cost.part,
            formats.significant(cost.loss, 3),
            formats.MISSING if cost.drop is None else _number(cost.drop / POINT),
        ]
        for cost in rejected.costs
    ]


def _reason(gate: Gate) -> str:
    return gate.reason or f"{_fall(gate)}{_bound(gate)}; {_allowed(gate)}"


def _fall(gate: Gate) -> str:
    how = f"falls by {_points(gate.drop)}" if gate.drop >= 0 else f"rises by {_points(-gate.drop)}"
    return f"{formats.metric_name(gate.metric)} {how} on {gate.rows:,} validation rows"


def _bound(gate: Gate) -> str:
    return f" (95 % bound of the drop: {_beside_allowed(gate)})"


def _beside_allowed(gate: Gate) -> str:
    """Return the bound with as many decimals as tell it from what is allowed."""
    decimals = next((n for n in (1, 2) if round(gate.bound, n) != round(gate.max_drop, n)), 3)
    return _number(gate.bound, decimals)


def _allowed(gate: Gate) -> str:
    return f"max_drop allows {_points(gate.max_drop)}"


def _points(value: float) -> str:
    return f"{_number(value)} point{'s' * (_number(value) != '1')}"


def _number(value: float, decimals: int = 1) -> str:
    return f"{round(value, decimals) + 0.0:g}".replace("-", "−")


def _cost(drop: float | None, loss: float) -> str:
    return f"{_points(drop / POINT)}" if drop is not None else f"loss +{formats.significant(loss, 2)}"
