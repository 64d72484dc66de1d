"""A deployable form of a model."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path

from compress.pipeline.model import Model
from compress.pipeline.record import NONE, Details
from compress.tasks.gate import Gate


@dataclass(frozen=True)
class Trained:
    """The model that an artifact was written from, where that is not the student."""

    model: Model
    agreement: float  # share of test rows on which the artifact must give the model's answer; fewer are an error


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A deployable form of the student, and what its maker knows of it."""

    name: str
    runtime: str  # "onnxruntime", "tensorrt", or "pytorch" for what the Auto classes load
    precision: str
    folder: Path
    key: str
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    details: Details = NONE  # more that report.json keeps
    variant: str = ""  # which of the several that one stage makes; its name ends in it
    tolerance: float = inf  # largest difference of a logit from the student's on the test rows; more is an error
    trained: Trained | None = None
    target: str = ""  # what it is made for, where that is not what it is measured on
    unmeasured: str = ""  # why it cannot be run on this machine, where it cannot
    holds: tuple[str, ...] = ()  # names of the artifacts whose files it gathers
    size_mib: float | None = None  # of what is deployed, where it is unmeasured
    gate: Gate | None = None  # what validation rows say of its loss, where they were asked


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An artifact that loses more than it may, or of which it cannot be known."""

    artifact: Artifact
    gate: Gate
    instead: str = ""  # the form that was kept in its place, by name
    costs: tuple[Cost, ...] = ()  # what each part loses by itself, the costliest first
    why_no_costs: str = ""  # as a clause


@dataclass(frozen=True)
class Cost:
    """What one part of a model loses by itself in the form of an artifact, on validation rows."""

    part: str
    loss: float  # rise of the task's loss
    drop: float | None  # of the main metric
