"""Trackers: training curves while they come about, and what a run came to, in TensorBoard or MLflow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from compress.errors import DISTRIBUTION, CompressError, Fault, in_one_line

Points = Sequence[Mapping[str, float]]
"""A training curve: points with their ``step`` and what was measured there."""

TENSORBOARD_FOLDER = "runs/tensorboard"  # unless TENSORBOARD_LOGGING_DIR says otherwise


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


class TensorBoard:
    """Event files in a folder for each run and, below it, for each training."""

    package = "tensorboard"

    def __init__(self, recipe: str, run: str) -> None:
        folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or TENSORBOARD_FOLDER
        self.folder = Path(folder).expanduser() / recipe / run

    def _writer(self, *parts: str) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(log_dir=str(self.folder.joinpath(*map(_safe, parts))))

    def callback(self, title: str) -> Any:
        """Return transformers' callback, with a folder for this training."""
        from transformers.integrations import TensorBoardCallback

        return TensorBoardCallback(self._writer(title))

    def curve(self, title: str, points: Points) -> None:
        """Write the points under the names that the callback gives them."""
        with self._writer(title) as writer:
            for point, step in _by_step(points):
                for name, value in point.items():
                    writer.add_scalar(f"train/{name}", value, step)

    def result(self, figures: Mapping[str, float], table: str) -> None:
        """Write a scalar for each figure, and the table as a text."""
        with self._writer() as writer:
            for name, value in figures.items():
                writer.add_scalar(name, value)
            writer.add_text("models", table)

    def close(self, status: str) -> None:
        """Nothing is left open."""


class MLflow:
    """A run, with a run for each training nested in it; where they go is for MLFLOW_TRACKING_URI to say."""

    package = "mlflow"

    def __init__(self, recipe: str, run: str) -> None:
        import mlflow

        self.mlflow: Any = mlflow
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or recipe)
        mlflow.start_run(run_name=run)

    def callback(self, title: str) -> Any:
        """Return transformers' callback, which begins a nested run."""
        from transformers.integrations import MLflowCallback

        class Nested(MLflowCallback):
            def setup(self, args: Any, state: Any, model: Any) -> None:
                args.run_name = title
                before = os.environ.get("MLFLOW_NESTED_RUN")
                os.environ["MLFLOW_NESTED_RUN"] = "TRUE"
                whole: Any = super()
                try:
                    whole.setup(args, state, model)
                finally:
                    del os.environ["MLFLOW_NESTED_RUN"]
                    if before is not None:
                        os.environ["MLFLOW_NESTED_RUN"] = before

            def __del__(self) -> None:
                """End nothing: what is open by then is another's, and `close` ends it."""

        made: Any = Nested
        return made()

    def curve(self, title: str, points: Points) -> None:
        """Log the points in a nested run."""
        with self.mlflow.start_run(run_name=title, nested=True):
            for point, step in _by_step(points):
                self.mlflow.log_metrics({_safe(name): value for name, value in point.items()}, step=step)

    def result(self, figures: Mapping[str, float], table: str) -> None:
        """Log the figures as metrics of the run, and the table as its artifact models.md."""
        self.mlflow.log_metrics({_safe(name): value for name, value in figures.items()})
        self.mlflow.log_text(table, "models.md")

    def close(self, status: str) -> None:
        """End the run, and those in it that a failure left open."""
        self.mlflow.flush_async_logging()
        while self.mlflow.active_run() is not None:
            self.mlflow.end_run(status)


TRACKERS: dict[str, type[TensorBoard] | type[MLflow]] = {"tensorboard": TensorBoard, "mlflow": MLflow}

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


def _by_step(points: Points) -> Iterator[tuple[dict[str, float], int]]:
    for point in points:
        yield {name: value for name, value in point.items() if name != "step"}, int(point["step"])


def _safe(name: str) -> str:
    """Return a name with only such signs as all trackers take."""
    return re.sub(r"[^0-9A-Za-z_\-. :/]", "_", name)
