"""Runs of MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from compress.train.tracking.base import Points, by_step, safe


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
            for point, step in by_step(points):
                self.mlflow.log_metrics({safe(name): value for name, value in point.items()}, step=step)

    def result(self, figures: Mapping[str, float], table: str) -> None:
        """Log the figures as metrics of the run, and the table as its artifact models.md."""
        self.mlflow.log_metrics({safe(name): value for name, value in figures.items()})
        self.mlflow.log_text(table, "models.md")

    def close(self, status: str) -> None:
        """End the run, and those in it that a failure left open."""
        self.mlflow.flush_async_logging()
        while self.mlflow.active_run() is not None:
            self.mlflow.end_run(status)
