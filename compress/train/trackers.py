"""Trackers: training curves while they come about, and what a run came to, in TensorBoard and others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from compress.errors import DISTRIBUTION, CompressError, Fault, in_one_line
from compress.train.tracking.base import Tracker
from compress.train.tracking.mlflow import MLflow
from compress.train.tracking.tensorboard import TensorBoard
from compress.train.tracking.trackio import Trackio
from compress.train.tracking.wandb import Wandb

TRACKERS: dict[str, type[TensorBoard] | type[MLflow] | type[Trackio] | type[Wandb]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "trackio": Trackio,
    "wandb": Wandb,
}

_current: list[Tracker] = []


def trackers() -> list[Tracker]:
    """Return where the run that is under way sends its curves."""
    return list(_current)


def tracker_faults(names: Sequence[str]) -> Iterator[Fault]:
    """Yield trackers that are not known, and those whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            yield Fault("report_to", name, "is not a tracker", f"Known: {', '.join(TRACKERS)}.")
        elif find_spec(TRACKERS[name].package) is None:
            remedy = f"Install it: pip install '{DISTRIBUTION}[{name}]'."
            yield Fault("report_to", name, f"needs the package {TRACKERS[name].package}", remedy)


@contextmanager
def tracked(names: Sequence[str], recipe: str, run: str) -> Iterator[list[Tracker]]:
    """Send curves of all trainings to trackers, for a time; the run in each ends as the body does.

    Raises CompressError where one cannot begin.
    """
    with ExitStack() as ends:
        for name in dict.fromkeys(names):
            try:
                tracker = TRACKERS[name](recipe, run)
            except Exception as error:  # a server that cannot be reached, or a store that is not one
                raise CompressError(f"report_to = {name}: cannot begin a run there: {in_one_line(error)}.") from error
            _current.append(tracker)
            ends.push(lambda kind, error, _, own=tracker: _end(own, kind))
        yield trackers()


def _end(tracker: Tracker, kind: type[BaseException] | None) -> None:
    _current.remove(tracker)
    tracker.close("FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")
