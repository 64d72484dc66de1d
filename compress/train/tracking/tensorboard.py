"""Event files for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.train.tracking.base import Points, by_step, safe

TENSORBOARD_FOLDER = "runs/tensorboard"  # unless TENSORBOARD_LOGGING_DIR says otherwise


class TensorBoard:
    """Event files in a folder for each run and, below it, for each training."""

    package = "tensorboard"

    def __init__(self, recipe: str, run: str) -> None:
        folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or TENSORBOARD_FOLDER
        self.folder = Path(folder).expanduser() / recipe / run

    def _writer(self, *parts: str) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(log_dir=str(self.folder.joinpath(*map(safe, parts))))

    def callback(self, title: str) -> Any:
        """Return transformers' callback, with a folder for this training."""
        from transformers.integrations import TensorBoardCallback

        return TensorBoardCallback(self._writer(title))

    def curve(self, title: str, points: Points) -> None:
        """Write the points under the names that the callback gives them."""
        with self._writer(title) as writer:
            for point, step in by_step(points):
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
