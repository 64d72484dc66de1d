"""Runs of Trackio, by default in a folder of this machine."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from compress.train.tracking.base import Points, by_step


class Trackio:
    """A project for each recipe, a group for each run and in it a run for each training.

    Where they go is for TRACKIO_DIR, TRACKIO_SPACE_ID or TRACKIO_SERVER_URL to say.
    """

    package = "trackio"

    def __init__(self, recipe: str, run: str) -> None:
        import trackio

        self.trackio: Any = trackio
        self.recipe, self.run = recipe, run

    @contextmanager
    def _open(self, name: str) -> Iterator[Any]:
        with redirect_stdout(io.StringIO()):  # where it says what it does
            self.trackio.init(project=self.recipe, name=name, group=self.run, resume="allow", embed=False)
            yield self.trackio
            self.trackio.finish()

    def callback(self, title: str) -> Any:
        """Return transformers' callback, with a run for this training."""
        from transformers.integrations import TrackioCallback

        recipe, name = self.recipe, f"{self.run}, {title}"

        class Named(TrackioCallback):
            def setup(self, args: Any, state: Any, model: Any, **more: Any) -> None:
                args.project, args.run_name = recipe, name
                args.trackio_static_space_id = False  # no copy of a Space at the end
                whole: Any = super()
                with redirect_stdout(io.StringIO()):
                    whole.setup(args, state, model, **more)

            def on_train_end(self, *given: Any, **more: Any) -> None:
                whole: Any = super()
                with redirect_stdout(io.StringIO()):
                    whole.on_train_end(*given, **more)

        made: Any = Named
        return made()

    def curve(self, title: str, points: Points) -> None:
        """Log the points under the names that the callback gives them."""
        with self._open(f"{self.run}, {title}") as trackio:
            for point, step in by_step(points):
                trackio.log({f"train/{name}": value for name, value in point.items()} | {"train/global_step": step})

    def result(self, figures: Mapping[str, float], table: str) -> None:
        """Log the figures and the table in a run of the run's own name."""
        with self._open(self.run) as trackio:
            trackio.log({**figures, "models": trackio.Markdown(table)})

    def close(self, status: str) -> None:
        """End the training that a failure left open."""
        if self.trackio.context_vars.current_run.get() is not None:
            with redirect_stdout(io.StringIO()):
                self.trackio.finish()
