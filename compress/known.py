"""What is known of a run when its settings are checked, from the bare settings to all that was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.data.dataset import Dataset
    from compress.pipeline.stage import Stage
    from compress.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class Known:
    """What `Settings.faults` may use; what is not known, or not yet, is None or empty.

    Configurations are those of transformers. `compress.run.check` first knows nothing but the stages, then what could
    be read.
    """

    stages: Mapping[str, Stage] = field(default_factory=dict)  # of the recipe by path, "prune.heads", in their order
    seed: int = 0  # of the recipe
    alone: bool = False  # there is no teacher: a saved student is used unchanged
    reading: bool = False  # files and models may be read
    data: Dataset | None = None
    task: Task | None = None
    only_answers: bool = False  # the teacher has no weights
    teacher: Any = None  # configuration of its model
    source: str | None = None  # the folder or hub id that it is loaded from
    fine_tuned: bool | None = None  # in this run
    longest: int | None = None  # tokens of the longest row that it takes
    student: Any = None  # configuration
    layers: tuple[tuple[int, int], ...] | None = None  # which of both a loss compares, counted from 1

    def group(self, *names: str) -> dict[str, Stage]:
        """Return the stages of some groups of the recipe, as ``prune``, by their names there."""
        paths = ((path.partition("."), stage) for path, stage in self.stages.items())
        return {name: stage for (group, _, name), stage in paths if group in names}


NOTHING = Known()
"""What is known of settings alone."""

NEEDS_WEIGHTS = "needs the weights of the teacher, which only answers"
"""The rule of a stage that a teacher without weights breaks (`Known.only_answers`)."""
