"""Runs of Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from compress.train.tracking.base import Points, by_step

CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}  # exit codes, from which it takes how a run ended


class Wandb:
    """A group for each run, in it a run for each training; WANDB_PROJECT names another project than the recipe's.

    Where they go is for WANDB_MODE, WANDB_DIR and the other variables of Weights & Biases to say.
    """

    package = "wandb"

    def __init__(self, recipe: str, run: str) -> None:
        import wandb

        self.wandb: Any = wandb
        self.project, self.run = os.environ.get("WANDB_PROJECT") or recipe, run
        if wandb.setup().settings.mode in ("online", "shared"):
            wandb.login()

    def _begin(self, name: str) -> Any:
        silent = self.wandb.Settings(silent=True, console="off")
        return self.wandb.init(project=self.project, group=self.run, name=name, settings=silent)

    def callback(self, title: str) -> Any:
        """Return transformers' callback, with a run for this training; models are not sent."""
        from transformers.integrations import WandbCallback
        from transformers.integrations.integration_utils import WandbLogModel

        tracker = self

        class Grouped(WandbCallback):
            def setup(self, args: Any, state: Any, model: Any, **more: Any) -> None:
                args.run_name = title
                self._log_model = WandbLogModel.FALSE
                if state.is_world_process_zero:
                    tracker._begin(title)
                whole: Any = super()
                whole.setup(args, state, model, **more)

            def on_train_end(self, args: Any, state: Any, *given: Any, **more: Any) -> None:
                tracker.close("FINISHED")
                self._initialized = False

        made: Any = Grouped
        return made()

    def curve(self, title: str, points: Points) -> None:
        """Log the points under the names that the callback gives them."""
        with self._begin(title) as run:
            run.define_metric("train/global_step")
            run.define_metric("*", step_metric="train/global_step", step_sync=True)
            for point, step in by_step(points):
                run.log({f"train/{name}": value for name, value in point.items()} | {"train/global_step": step})

    def result(self, figures: Mapping[str, float], table: str) -> None:
        """Put the figures into the summary of a run of the run's own name, and the table into its artifact."""
        with self._begin(self.run) as run:
            run.summary.update(dict(figures))
            models = self.wandb.Artifact(f"models-{run.id}", type="report")
            with models.new_file("models.md") as file:
                file.write(table)
            run.log_artifact(models)

    def close(self, status: str) -> None:
        """End the run that is open, as where a training failed."""
        if self.wandb.run is not None:
            self.wandb.finish(exit_code=CODES[status])
