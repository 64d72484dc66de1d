"""Work between training steps: timed checkpoints, validation, early stopping, the progress bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from compress.errors import CompressError
from compress.interruption import Interruption
from compress.progress import progress
from compress.telling import detail
from compress.train.checkpoints import CHECKPOINTS, Best, seal
from compress.train.order import Order
from compress.train.randomness import same_randomness
from compress.train.settings import Training


class Keeper(TrainerCallback):
    """Writes checkpoints by time, validates after epochs, stops early and keeps the best weights.

    An interruption takes effect after a step: a checkpoint is written, and training stops.
    """

    def __init__(
        self,
        objective: nn.Module,
        settings: Training,
        folder: Path,
        validate: Callable[[], Mapping[str, float]],
        order: Order,
        interruption: Interruption,
        *,
        least_steps: int = 0,
        validate_every: int = 1,
    ) -> None:
        self.interruption = interruption
        self.stopped = self.finished = False  # in the middle of an epoch; at the end of all
        self.objective, self.settings, self.validate, self.order = objective, settings, validate, order
        self.least_steps, self.validate_every = least_steps, validate_every
        self.checkpoints, self.best = folder / CHECKPOINTS, Best(folder)
        self.saved_at = time.monotonic()
        self.steps_an_epoch = -(-len(order) // settings.batch_size)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Pass the number of the epoch to the row order."""
        self.order.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Request a checkpoint when one is due; stop when training is interrupted."""
        # the last step of an epoch is kept after its validation
        if state.global_step % self.steps_an_epoch and state.global_step < state.max_steps:
            self.stopped = bool(self.interruption)
            control.should_save = self.stopped or self.due
            control.should_training_stop = control.should_training_stop or self.stopped

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint as complete."""
        seal(self.checkpoints / f"checkpoint-{state.global_step}", self.best, finished=self.finished)
        self.saved_at = time.monotonic()

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Validate when due; keep the weights or stop as early stopping or an interruption demands."""
        if self.stopped:  # in the middle of this epoch, which continues after resuming
            return
        epoch = round(state.global_step / self.steps_an_epoch)
        if epoch % self.validate_every == 0 or state.global_step >= state.max_steps:
            with same_randomness():
                metrics = self.validate()
            self.objective.train()
            if not all(map(math.isfinite, metrics.values())):
                raise CompressError(
                    f"Training diverged: after step {state.global_step} validation gives {dict(metrics)}. "
                    "Lower the stage's learning_rate, or its gradient_clip."
                )
            found = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            detail(f"  after step {state.global_step}: validation {found}")
            state.log_history.append(
                {"step": state.global_step, "epoch": state.epoch or 0.0}
                | {f"validation_{name}": value for name, value in metrics.items()}
            )
            if self.settings.early_stopping and metrics:
                self._keep_if_best(rank(metrics), state, control)
        self.finished = control.should_training_stop or state.global_step >= state.max_steps
        interrupted = bool(self.interruption)
        control.should_save = interrupted or (
            self.due and not self.finished
        )  # resuming from there would continue training
        control.should_training_stop = control.should_training_stop or interrupted

    def _keep_if_best(self, metrics: list[float], state: TrainerState, control: TrainerControl) -> None:
        best = self.best.known()
        if best is None or metrics > best["rank"] or state.global_step <= best["step"]:
            self.best.keep(self.objective.state_dict(), rank=metrics, step=state.global_step, epoch=state.epoch)
        elif (state.epoch or 0) - best["epoch"] < self.settings.early_stopping * self.validate_every:
            return
        elif state.global_step >= self.least_steps:
            control.should_training_stop = True

    def restore_best(self) -> None:
        """Restore the best epoch's weights if early stopping kept any."""
        weights = self.best.weights()
        if weights is not None:
            self.objective.load_state_dict(weights)


def rank(metrics: Mapping[str, float]) -> list[float]:
    """Return a sort key for validations, best last: the first metric, then the lower ``loss``."""
    return [next(iter(metrics.values())), -metrics.get("loss", 0.0)]


class ProgressBar(TrainerCallback):
    """A progress bar with the time left and the last logged loss."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the bar at the step from which training continues."""
        self.bar = progress(total=state.max_steps, initial=state.global_step, title=self.title, unit="step")

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update()

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        """Show the loss."""
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            found = ", ".join(f"{name} {value:.4g}" for name, value in logs.items() if name != "epoch")
            detail(f"  {self.title}: step {state.global_step} of {state.max_steps}: {found}")

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
