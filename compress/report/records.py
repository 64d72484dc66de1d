"""What a report holds, as typed, frozen records; all that the writers say is read from these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from compress.data.summary import Summary
from compress.tasks.paired import Difference

Group = Literal["stage", "artifact", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Timings of one model under one condition."""

    device: str
    threads: int | None
    batch: int | None
    tokens: int | str | None  # "real": the test rows at their own lengths
    tokenization: bool  # whether the tokenizer's time is in the figure
    median_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    calls: int | None
    copies: bool = False  # whether copies to the device and back are in the figure
    variant: str = ""  # how the runtime ran the model, where it has several ways

    @property
    def place(self) -> tuple[str, int | None]:
        """Where it ran: device and threads."""
        return self.device, self.threads

    @property
    def condition(self) -> tuple[str, int | None, int | None, int | str | None, bool, bool]:
        """All that must be equal for two timings to be compared."""
        return self.device, self.threads, self.batch, self.tokens, self.tokenization, self.copies


@dataclass(frozen=True, kw_only=True)
class Run:
    """A model on one device, in one variant: measured on the test rows, or why it was not."""

    device: str
    variant: str
    precision: str
    metrics: dict[str, float]
    interval: dict[str, tuple[float, float]]
    agreement: float | None
    max_abs_difference: float | None
    speedup: float | None
    rows_per_second: float | None
    int8_matmuls: tuple[int, int] | None
    not_measured: str


@dataclass(frozen=True, kw_only=True)
class Int8Part:
    """The matrix products of one part of a model, by name."""

    part: str
    int8: list[str]  # those that run in int8
    floats: list[str]


@dataclass(frozen=True, kw_only=True)
class Flips:
    """The test rows on which an artifact says something else than the student."""

    count: int
    rows: list[dict[str, str]]  # the first: row, text, label, student, artifact


@dataclass(frozen=True, kw_only=True)
class SensitivePart:
    """What int8 does to one part of a model."""

    part: str
    sensitivity: float  # in the measure by which the parts were put in order
    drop: float | None  # of the main metric on validation rows, with this part alone in int8
    precision: str  # that it was given


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How the parts that stay in fp32 were found, on validation rows."""

    metric: str
    fp32: float | None  # the metric with nothing in int8
    rows: int
    order: str
    max_drop: float | None
    parts: list[SensitivePart]
    steps: list[tuple[int, float]]  # parts in fp32, and how far the metric falls then


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The model after a stage, an artifact or a baseline. None and empty mean: not recorded."""

    group: Group
    name: str
    kind: str
    runtime: str
    precision: str
    path: str
    metrics: dict[str, float]
    interval: dict[str, tuple[float, float]]
    parameters: int | None
    size_mib: float | None
    seconds: float | None
    reused: bool
    retained: float | None
    agreement: float | None
    max_abs_difference: float | None
    latency: list[Latency]
    speedup: float | None
    rows_per_second: float | None
    int8_matmuls: tuple[int, int] | None
    layers: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    notes: list[str]
    differences: dict[str, Difference] = field(default_factory=dict)  # of the main metric, by what it is compared with
    int8_parts: list[Int8Part] = field(default_factory=list)
    flipped: Flips | None = None
    sensitivity: Sensitivity | None = None
    not_measured: str = ""  # why it has no figures, where it cannot be run on the machine
    runs: list[Run] = field(default_factory=list)  # every device and variant, where there is more than one

    def headline(self, place: tuple[str, int | None] | None = None) -> Latency | None:
        """Return the timing quoted first: one row at its real length, no tokenization; at ``place`` if it is there."""
        found = [
            entry
            for entry in self.latency
            if entry.batch == 1 and entry.tokens == "real" and not (entry.tokenization or entry.copies)
            if (entry.median_ms or 0) > 0
        ]
        return next((entry for entry in found if entry.place == place), found[0] if found else None)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What one augmentation added to the rows that the teacher labels."""

    kind: str
    settings: dict[str, Any]
    counts: dict[str, int]  # by name; copies made, kept and dropped, and what was done to them
    examples: list[tuple[str, str]]  # (original, augmented); the texts of a pair in one, divided by |
    seconds: float | None
    reused: bool


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A model of which only some layers are left, not trained again."""

    layers: list[int]  # those that are left, counted from 1
    metrics: dict[str, float]
    interval: dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class DepthCurve:
    """One trained model, cut to every depth."""

    name: str
    layer_drop: float | None  # the rate at which layers were skipped while it was trained
    order: str  # by which layers were chosen
    cuts: list[Cut]  # the shallowest first

    @property
    def label(self) -> str:
        """What tells it from the others."""
        return f"{self.name}: LayerDrop {self.layer_drop:g}" if self.layer_drop else f"{self.name}: no LayerDrop"


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run. Missing parts are empty, so that every writer can go on."""

    recipe: str
    name: str
    command: str
    settings: dict[str, Any]
    seed: int | None
    started: str
    seconds: float | None
    machine: dict[str, Any]
    versions: dict[str, str]
    task_kind: str
    labels: list[str]
    main_metric: str
    dataset: str
    rows: dict[str, int]
    fingerprint: str
    notes: list[str]
    stages: list[Entry]
    artifacts: list[Entry]
    baselines: list[Entry]
    recommended: str
    warnings: list[str]  # the verdicts to be read before all else
    verdicts: list[str]
    augmentations: list[Augmentation]
    depths: list[DepthCurve]
    summary: Summary = field(default_factory=Summary)  # how the rows were read

    @property
    def title(self) -> str:
        """Recipe and run name, said once when they are the same."""
        return " · ".join(dict.fromkeys(part for part in (self.recipe, self.name) if part)) or "run"

    @property
    def findings(self) -> list[str]:
        """The verdicts without the warnings."""
        return [verdict for verdict in self.verdicts if verdict not in self.warnings]

    @property
    def entries(self) -> list[Entry]:
        """Stages, artifacts and baselines, in that order."""
        return [*self.stages, *self.artifacts, *self.baselines]

    @property
    def teacher(self) -> Entry | None:
        """The stage called teacher."""
        return self._stage("teacher")

    @property
    def given(self) -> Entry | None:
        """The student that was given, in a run without a teacher."""
        return self._stage("student") if self.teacher is None else None

    @property
    def reference(self) -> Entry | None:
        """What speedups and `retained` are measured against: the teacher, or the student that was given."""
        return self.teacher or self.given

    @property
    def against(self) -> str:
        """What `reference` is, in a word or two."""
        return "given student" if self.given else "teacher"

    def _stage(self, name: str) -> Entry | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def best(self) -> Entry | None:
        """The recommended artifact."""
        return next((entry for entry in self.artifacts if entry.name == self.recommended), None)

    @property
    def student(self) -> Entry | None:
        """The PyTorch student: the artifact of that name, or the model after the last stage."""
        named = next((entry for entry in self.artifacts if entry.name == "student"), None)
        trained = [stage for stage in self.stages if stage.name != "teacher"]
        return named or (trained[-1] if trained else None)

    @property
    def place(self) -> tuple[str, int | None] | None:
        """Device and threads of the figures quoted first: those of the first stage, else of any entry."""
        for entry in [*self.stages[:1], *self.entries]:
            if (found := entry.headline()) is not None:
                return found.place
        return None

    def milliseconds(self, entry: Entry) -> float | None:
        """Return the median latency quoted first."""
        found = entry.headline(self.place)
        return found.median_ms if found else None

    def metric(self, entry: Entry) -> float | None:
        """Return the main metric."""
        return entry.metrics.get(self.main_metric)

    def interval(self, entry: Entry) -> tuple[float, float] | None:
        """Return the main metric's 95 % interval."""
        return entry.interval.get(self.main_metric)
