"""report.json: the records that write it, read it back and describe it.

Every field at its default is left out of the file, and a key that is not among the fields is ignored on reading.
docs/report.schema.json describes the file as JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from compress.benchmark.figures import (
    TEACHER_INT8,
    ArtifactEntry,
    BaselineEntry,
    DepthCurve,
    Entry,
    RejectedEntry,
    StageEntry,
)
from compress.data.summary import Summary
from compress.usage import Usage

SCHEMA: Literal[2] = 2
Decision = Literal["ship", "ship with care", "do not ship"]
SHIP: Decision = "ship"
CARE: Decision = "ship with care"
DO_NOT: Decision = "do not ship"


class Example(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row and its augmented copy; a pair has two texts."""

    original: list[str] = []
    augmented: list[str] = []


class AugmentationEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one augmentation added to the rows that the teacher labels."""

    kind: str = ""
    settings: dict[str, Any] = {}
    counts: Annotated[dict[str, int], Meta(description="copies made, kept and dropped, and what was done to them")] = {}
    examples: list[Example] = []
    seconds: float | None = None
    reused: bool = False


class StageCost(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What it took to make what a stage needs."""

    stage: str
    products: Annotated[int, Meta(description="folders in the cache that it asked for, and no stage before it")] = 0
    reused: Annotated[int, Meta(description="those of them that were there: their costs are of the earlier time")] = 0
    usage: Usage = field(default_factory=Usage)


class Reason(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why to ship, or not."""

    rule: Annotated[str, Meta(description="name of the rule; docs/report.md lists them")]
    decision: Annotated[Decision, Meta(description="what the rule alone would decide")]
    text: Annotated[str, Meta(description="a sentence")]
    detail: Annotated[str, Meta(description="figures and remedy")] = ""


class Shipping(Struct, frozen=True, kw_only=True):
    """Whether to ship the recommended artifact."""

    decision: Decision
    reasons: Annotated[list[Reason], Meta(description="the gravest first")]


class TaskFacts(Struct, frozen=True, kw_only=True):
    """What is predicted."""

    kind: str = ""
    labels: list[str] = []
    main_metric: Annotated[str, Meta(description="the metric that decides and is quoted first")] = "accuracy"
    test: Annotated[str, Meta(description="what differences of the main metric are tested with, in words")] = ""


class DataFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rows."""

    name: str = ""
    rows: Annotated[dict[str, int], Meta(description="number of rows, by split")] = {}
    fingerprint: Annotated[str, Meta(description="a hash of all rows")] = ""
    test_fingerprint: Annotated[str, Meta(description="a hash of the test rows")] = ""
    notes: list[str] = []
    answered: Annotated[
        list[str], Meta(description="splits without labels, in whose place the teacher's answers are put")
    ] = []
    summary: Summary = field(default_factory=Summary)


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run. Missing parts are empty, so that every writer can go on."""

    schema: Literal[2]
    recipe: str = ""
    name: str = ""
    command: str = ""
    settings: dict[str, Any] = {}
    seed: int | None = None
    started: Annotated[str, Meta(description="ISO 8601, with the offset")] = ""
    seconds: float | None = None
    usage: Annotated[Usage | None, Meta(description="what this run itself took, without what was in the cache")] = None
    costs: Annotated[list[StageCost], Meta(description="what it took to make everything, part by part")] = []
    timed_again: Annotated[str, Meta(description="when its timings were measured again, ISO 8601")] = ""
    machine: dict[str, Any] = {}
    versions: dict[str, str] = {}
    task: TaskFacts = field(default_factory=TaskFacts)
    dataset: DataFacts = field(default_factory=DataFacts)
    augmentation: list[AugmentationEntry] = []
    stages: list[StageEntry] = []
    artifacts: list[ArtifactEntry] = []
    rejected: Annotated[list[RejectedEntry], Meta(description="artifacts that lose more than max_drop")] = []
    skipped: Annotated[list[str], Meta(description="what was not made, for lack of artifacts that hold")] = []
    baselines: list[BaselineEntry] = []
    depths: list[DepthCurve] = []
    recommended: Annotated[str | None, Meta(description="name of the artifact to ship")] = None
    shipping: Annotated[Shipping | None, Meta(description="whether to ship the recommended artifact")] = None
    verdicts: Annotated[list[str], Meta(description="what else follows from the figures")] = []

    @property
    def main_metric(self) -> str:
        """The metric that is quoted first."""
        return self.task.main_metric

    @property
    def test_rows(self) -> int | None:
        """Number of test rows."""
        return self.dataset.rows.get("test")

    @property
    def title(self) -> str:
        """Recipe and run name, said once when they are the same."""
        return " · ".join(dict.fromkeys(part for part in (self.recipe, self.name) if part)) or "run"

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
    def own_int8(self) -> Entry | None:
        """The teacher's own int8, made without training; None where it was not measured."""
        return next((entry for entry in self.baselines if entry.name == TEACHER_INT8 and entry.measured), None)

    @property
    def has_int8_speedups(self) -> bool:
        """Whether speedups over the teacher's own int8 were measured."""
        return any(entry.over_int8 is not None for entry in self.entries)

    @property
    def has_quiet_timings(self) -> bool:
        """Whether the quietest calls were told apart."""
        return any(timing.quiet_ms is not None for entry in self.entries for timing in entry.latency)

    @property
    def nothing_passes(self) -> bool:
        """Whether all that was made of the student was rejected."""
        return bool(self.rejected) and all(artifact.path == "student" for artifact in self.artifacts)

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
