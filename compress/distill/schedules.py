"""How a weight or a temperature moves during training."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from compress.errors import Fault


class Schedule(Enum):
    """constant: stays; linear: moves evenly from start to end; step: jumps to the end at `step_at`."""

    constant = "constant"
    linear = "linear"
    step = "step"


def value_at(progress: float, schedule: Schedule, start: float, end: float | None, step_at: float) -> float:
    """Return the value when a share ``progress``, 0 to 1, of training is done."""
    if end is None or schedule is Schedule.constant:
        return start
    if schedule is Schedule.step:
        return end if progress >= step_at else start
    return start + (end - start) * progress


def schedule_faults(name: str, schedule: Schedule, end: float | None) -> Iterator[Fault]:
    """Yield a fault where a schedule and its end value do not go together."""
    if schedule is Schedule.constant and end is not None:
        yield Fault(
            f"{name}_end", end, f"has no effect while {name}_schedule is constant", f"Set {name}_schedule=linear."
        )
    if schedule is not Schedule.constant and end is None:
        yield Fault(f"{name}_schedule", schedule.value, f"needs {name}_end", f"Set {name}_end to the last value.")
