"""What a stage did, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from compress.pipeline.model import Model

Curve = tuple[Mapping[str, float], ...]
"""Points of a training curve, each with its step and what was measured there."""


class Role(Enum):
    """What a stage is to the student."""

    teacher = "teacher"
    student = "student"
    preparation = "preparation"
    distillation = "distillation"
    pruning = "pruning"


@dataclass(frozen=True)
class Details:
    """What a stage or an artifact tells beyond what all of them tell; each kind of work has a subclass of its own."""

    def report(self) -> dict[str, Any]:
        """Return what report.json keeps, JSON-ready, under keys of its own: all fields except those that are None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


NONE = Details()


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one stage did, and the model that it left behind."""

    name: str  # that the recipe has for the stage
    kind: str  # the stage's class
    role: Role
    model: Model | None  # None: what a teacher without weights did
    seconds: float
    reused: bool
    notes: tuple[str, ...] = ()
    curves: Curve = ()
    details: Details = NONE
    beside: Mapping[str, Path] = field(default_factory=dict)  # more folders that a run keeps, by their place in its own


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """What one augmentation added to the rows that the teacher labels."""

    kind: str  # the augmentation's class
    settings: Mapping[str, Any]
    counts: Mapping[str, int]  # copies made, kept and dropped, and what was done to them
    examples: tuple[Mapping[str, Any], ...]  # each with its texts ``original`` and ``augmented``
    seconds: float
    reused: bool

    def report(self) -> dict[str, Any]:
        """Return what report.json keeps of it, JSON-ready."""
        return asdict(self)
