"""What stays the same from the first stage of a run to the last."""

from __future__ import annotations

from dataclasses import dataclass

from compress.data.dataset import Dataset
from compress.pipeline.workshop import Workshop


@dataclass(frozen=True)
class Context:
    """What a run is about, where it works, and what its random choices start from."""

    data: Dataset  # as it was given: no rows added, its labels in the order of its source
    workshop: Workshop
    seed: int
