"""One way of running a stage's model or an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.runtimes.base import Runtime, Variant


@dataclass(frozen=True, kw_only=True)
class Way:
    """A folder, run by a runtime in one of its variants."""

    subject: str  # what is run: "stages/NAME", "artifacts/NAME" or "baselines/NAME"
    runtime: Runtime
    folder: Path
    key: str  # of what is in the folder
    precision: str
    variant: Variant
    in_grid: bool  # whether batches are timed too, or real rows alone

    @property
    def label(self) -> str:
        """What tells it from all others on the device."""
        return f"{self.subject}, {self.variant.name}" if self.variant.name else self.subject
