"""The figures of a report: what is recorded of each stage, artifact and baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, convert

from compress.benchmark.row_answers import RowAnswers
from compress.tasks.base import ByClass
from compress.tasks.gate import Gate
from compress.tasks.paired import Difference

TEACHER_ONNX, TEACHER_INT8 = "teacher_onnx", "teacher_int8"  # the baselines that are the teacher itself

Group = Literal["stage", "artifact", "baseline"]
Interval = tuple[float, float]


class Latency(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Timings of one model under one condition."""

    device: str = ""
    threads: int | None = None
    batch: Annotated[int | None, Meta(description="rows per call")] = None
    tokens: Annotated[int | str | None, Meta(description='tokens per row; "real": test rows at their own lengths')] = (
        None
    )
    tokenization: Annotated[bool, Meta(description="whether the tokenizer's time is included")] = False
    copies: Annotated[bool | None, Meta(description="whether copies to the device and back are included")] = None
    variant: Annotated[str, Meta(description="how the runtime ran, where it has several ways")] = ""
    median_ms: float | None = None
    quiet_ms: Annotated[float | None, Meta(description="median of the quietest quarter of the calls")] = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    calls: int | None = None
    noise: Annotated[str, Meta(description="why the figures are noisy, where they are")] = ""
    not_measured: Annotated[str, Meta(description="why it has no figures")] = ""

    @property
    def place(self) -> tuple[str, int | None]:
        """Where it ran: device and threads."""
        return self.device, self.threads

    @property
    def condition(self) -> tuple[str, int | None, int | None, int | str | None, bool, bool]:
        """All that must be equal for two timings to be compared."""
        return self.device, self.threads, self.batch, self.tokens, self.tokenization, bool(self.copies)


class Int8Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The matrix products of one part of a model, by name."""

    part: str
    int8: Annotated[list[str], Meta(description="products that run in int8")] = []
    floats: Annotated[list[str], Meta(description="products that run in floats")] = []


class Flip(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A test row to which an artifact and the student give different answers."""

    row: Annotated[int, Meta(description="counted from 1")]
    text: str
    label: str
    student: Annotated[str, Meta(description="the student's answer")]
    artifact: Annotated[str, Meta(description="the artifact's answer")]


class Flips(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many test rows an artifact and the student answer differently, and the first of them."""

    count: int
    rows: list[Flip] = []


class SensitivePart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What int8 does to one part of a model."""

    part: str
    sensitivity: Annotated[float, Meta(description="in the measure by which the parts were ordered")] = 0.0
    drop: Annotated[float | None, Meta(description="of the main metric with this part alone in int8")] = None
    precision: Annotated[str, Meta(description="the precision that the part was given")] = ""


class SensitivityStep(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the main metric falls with some parts in fp32 and all others in int8."""

    fp32: list[str] = []
    drop: float = 0.0


class SensitivityEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the parts that stay in fp32 were found, on validation rows."""

    metric: str = ""
    fp32: Annotated[float | None, Meta(description="the metric with nothing in int8")] = None
    rows: int = 0
    order: str = ""
    max_drop: float | None = None
    parts: list[SensitivePart] = []
    steps: Annotated[list[SensitivityStep], Meta(description="the last is the one that was taken")] = []


class ExitWorthEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What rows are worth that leave by a rule: the main metric, and the layers that a row takes on average."""

    metric: float | None = None
    layers: float | None = None


class TriedExit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A threshold, and what it is worth."""

    threshold: float
    validation: ExitWorthEntry = ExitWorthEntry()
    test: ExitWorthEntry = ExitWorthEntry()


class ExitEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When rows leave a model with early exits."""

    rule: str = ""
    threshold: float | None = None
    layers: int = 0
    average_layers: float | None = None
    rows_by_layer: list[int] = []
    tried: list[TriedExit] = []


class LayerShape(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one layer of a model has left."""

    heads: int
    neurons: Annotated[int, Meta(description="feed-forward units")]


class AgainstTrained(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an artifact compares with the model that it was trained as, on the test rows."""

    rows: int
    agreement: float
    max_abs_difference: float


class DeviceRun(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model or artifact on one device, in one variant: measured on the test rows, or why it was not."""

    device: str
    variant: Annotated[str, Meta(description="how the runtime ran, where it has several ways")] = ""
    precision: str = ""
    metrics: dict[str, float] = {}
    interval: Annotated[dict[str, Interval], Meta(description="95 % interval of each metric")] = {}
    retained: float | None = None
    agreement: float | None = None
    max_abs_difference: float | None = None
    speedup: Annotated[float | None, Meta(description="against the reference's first variant on the same device")] = (
        None
    )
    over_int8: Annotated[float | None, Meta(description="against the teacher's own int8 on the same device")] = None
    rows_per_second: float | None = None
    int8_matmuls: tuple[int, int] | None = None
    not_measured: Annotated[str, Meta(description="why it has no figures")] = ""


class Chosen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an artifact answers on validation rows, by which the one to recommend is chosen."""

    rows: Annotated[int, Meta(description="validation rows that were answered")]
    metrics: dict[str, float] = {}
    difference: Annotated[Difference | None, Meta(description="to the student, on the same rows")] = None


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The model after a stage, an artifact or a baseline. What is absent was not recorded."""

    group: ClassVar[Group]

    name: str = "unnamed"
    kind: Annotated[str, Meta(description="the stage's class; of a baseline, what it is")] = ""
    metrics: dict[str, float] = {}
    interval: Annotated[dict[str, Interval], Meta(description="95 % interval of each metric")] = {}
    parameters: int | None = None
    size_mib: float | None = None
    seconds: Annotated[float | None, Meta(description="that making it took")] = None
    retained: Annotated[float | None, Meta(description="main metric over the reference's, on the same rows")] = None
    agreement: Annotated[
        float | None,
        Meta(description="share of test rows with the same answer: stages as the teacher, artifacts as the student"),
    ] = None
    max_abs_difference: Annotated[
        float | None, Meta(description="largest difference of a logit from the student's")
    ] = None
    latency: list[Latency] = []
    speedup: Annotated[
        float | None, Meta(description="against the reference in eager PyTorch fp32: batch 1, real rows, same device")
    ] = None
    over_int8: Annotated[
        float | None, Meta(description="against the teacher's own int8 in ONNX Runtime, under the same condition")
    ] = None
    differences: Annotated[
        dict[str, Difference], Meta(description="paired difference of the main metric, by what it is compared with")
    ] = {}
    classes: Annotated[list[ByClass], Meta(description="how well each class is found, on test rows")] = []
    curves: Annotated[list[dict[str, float]], Meta(description="points of the training curve")] = []
    notes: list[str] = []
    details: Annotated[dict[str, Any], Meta(description="what only this kind of stage or artifact records")] = {}

    # of a stage
    role: Annotated[str, Meta(description="what a stage is to the student: teacher, distillation, pruning, …")] = ""
    reused: Annotated[bool, Meta(description="whether it was taken from the cache")] = False
    layers: list[LayerShape] = []

    # of an artifact
    runtime: str = ""
    precision: str = ""
    path: Annotated[str, Meta(description="its folder, below the run's")] = ""
    rows_per_second: float | None = None
    int8_matmuls: Annotated[
        tuple[int, int] | None, Meta(description="matrix products that run in int8, and all of them")
    ] = None
    int8_parts: list[Int8Part] = []
    validation: Chosen | None = None
    flipped: Flips | None = None
    trained: AgainstTrained | None = None
    target: Annotated[str, Meta(description="what it is made for, where that is not what it was measured on")] = ""
    not_measured: Annotated[str, Meta(description="why it has no figures")] = ""
    gate: Annotated[Gate | None, Meta(description="what validation rows say of its loss")] = None
    runs: Annotated[list[DeviceRun], Meta(description="every device and variant, where there is more than one")] = []

    @property
    def sensitivity(self) -> SensitivityEntry | None:
        """How the parts that stay in fp32 were found; None where that was not asked for."""
        record = self.details.get("sensitivity")
        return None if record is None else convert(record, SensitivityEntry)

    @property
    def exits(self) -> ExitEntry | None:
        """When rows leave early; None where none can."""
        record = self.details.get("exits")
        return None if record is None else convert(record, ExitEntry)

    @property
    def stated_ms(self) -> float | None:
        """The milliseconds that a teacher which cannot be timed takes for a row, as the recipe states them."""
        return self.details.get("stated_latency_ms")

    @property
    def cost_per_1000(self) -> float | None:
        """What 1,000 answers of a teacher cost, as the recipe states it."""
        return self.details.get("cost_per_1000")

    @property
    def measured(self) -> bool:
        """Whether it was run here."""
        return not self.not_measured

    def headline(self, place: tuple[str, int | None] | None = None) -> Latency | None:
        """Return the timing quoted first: one row at its real length, no tokenization; at ``place`` if it is there."""
        timings = [
            timing
            for timing in self.latency
            if timing.batch == 1 and timing.tokens == "real" and not (timing.tokenization or timing.copies)
            if (timing.median_ms or 0) > 0
        ]
        return next((timing for timing in timings if timing.place == place), timings[0] if timings else None)


class StageEntry(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """The model after a stage."""

    group: ClassVar[Group] = "stage"


class ArtifactEntry(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """A deployable form of the student."""

    group: ClassVar[Group] = "artifact"


class BaselineEntry(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """What anybody could have instead."""

    group: ClassVar[Group] = "baseline"


class CostEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one part of a model loses by itself in the form of an artifact, on validation rows."""

    part: str
    loss: Annotated[float, Meta(description="rise of the task's loss")]
    drop: Annotated[float | None, Meta(description="of the main metric")] = None


class RejectedEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An artifact that loses more than it may; it is under rejected/, and nothing recommends or serves it."""

    name: str
    gate: Gate
    runtime: str = ""
    precision: str = ""
    path: Annotated[str, Meta(description="its folder, below the run's")] = ""
    size_mib: float | None = None
    seconds: Annotated[float | None, Meta(description="that making it took")] = None
    instead: Annotated[str, Meta(description="the artifact that was kept in its place, by name")] = ""
    costs: Annotated[list[CostEntry], Meta(description="what each part loses alone in it, the costliest first")] = []
    why_no_costs: str = ""
    notes: list[str] = []


class Cut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model of which only some layers are left, not trained again."""

    layers: Annotated[list[int], Meta(description="those that are left, counted from 1")]
    metrics: dict[str, float] = {}
    interval: dict[str, Interval] = {}


class DepthCurve(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One trained model, cut to every depth."""

    name: str
    layer_drop: Annotated[float | None, Meta(description="rate at which layers were skipped in its training")] = None
    order: Annotated[str, Meta(description="how the layers were chosen")] = ""
    cuts: Annotated[list[Cut], Meta(description="the shallowest first")] = []

    @property
    def label(self) -> str:
        """What tells it from the others."""
        return f"{self.name}: LayerDrop {self.layer_drop:g}" if self.layer_drop else f"{self.name}: no LayerDrop"


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a benchmark measured of a run."""

    stages: list[StageEntry]
    artifacts: list[ArtifactEntry]
    baselines: list[BaselineEntry]
    depths: list[DepthCurve]
    answers: RowAnswers
