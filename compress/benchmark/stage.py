"""Everything a report measures: models, artifacts and baselines, on the same rows, by running them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec import convert, structs

from compress.benchmark.baselines import Cheap, constant, tfidf
from compress.benchmark.choosing import Choosing
from compress.benchmark.depths import Depths
from compress.benchmark.figures import (
    TEACHER_INT8,
    TEACHER_ONNX,
    AgainstTrained,
    ArtifactEntry,
    BaselineEntry,
    CostEntry,
    DepthCurve,
    Latency,
    LayerShape,
    Measurements,
    RejectedEntry,
    StageEntry,
)
from compress.benchmark.flips import flips
from compress.benchmark.row_answers import RowAnswers
from compress.benchmark.runs import counted, home_of, int8_of, not_finite, runs_of, speed, speeds_of_the_cheap
from compress.benchmark.scores import ScoredRows, share
from compress.benchmark.ways import ARTIFACTS, BASELINES, STAGES, OnDevice, Timing, measure_on
from compress.data.dataset import Dataset
from compress.distill.stage import Distill
from compress.errors import Fault, ModelError
from compress.families.forms.uneven import kept_heads, neurons
from compress.families.registry import can_be_taken_apart, known_family, type_in_words
from compress.files import size_mib
from compress.known import NOTHING, Known
from compress.models.loading import load_model
from compress.models.outputs import parameters
from compress.models.positions import longest_row
from compress.onnx.storage import SUFFIXES
from compress.pipeline.artifact import Artifact
from compress.pipeline.model import Model
from compress.pipeline.record import Record, Role
from compress.pipeline.state import State
from compress.runtimes.devices import CPU, DEVICES, Device, device_fault, devices_here
from compress.runtimes.registry import RUNTIMES
from compress.settings import Settings, at_least, positive
from compress.tasks.base import Array

WEIGHTS = (".safetensors", *SUFFIXES)


@dataclass(kw_only=True)
class Benchmark(Settings):
    """What is measured, and how long."""

    devices: list[str] = field(
        default_factory=list
    )  # devices to measure on, as [cpu,cuda]; empty: all that the machine has
    threads: int = 1  # threads of every runtime
    rows: int = 200  # test rows timed one by one at their real lengths
    batches: list[int] = field(default_factory=lambda: [1, 8, 32])  # batch sizes of the latency grid
    tokens: list[int] = field(default_factory=lambda: [32, 128])  # lengths of the latency grid
    seconds: float = (
        2.0  # busy time after which a slow runner stops short of 100 calls; what is left repeats noisy ones
    )
    tfidf: bool = True  # the baseline TF-IDF + linear model
    teacher_int8: bool = True  # the baseline of the teacher itself in ONNX, fp32 and int8, without training
    labels_only: bool = True  # the baseline of the same student trained on labels alone
    depths: Depths = (
        Depths.auto
    )  # measure the distilled student at every depth, without training; auto: every_other after LayerDrop
    depths_twin: bool = False  # also measure a student trained without LayerDrop, which costs another training

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check the devices, the ranges of counts, and that the models take such rows and can be cut as is said."""
        if fault := device_fault(self.devices):
            yield Fault("devices", list(self.devices), *fault)
        yield from at_least(self, "threads", 1)
        yield from at_least(self, "rows", 1)
        yield from positive(self, "seconds")
        for name in ("batches", "tokens"):
            if any(value < 1 for value in getattr(self, name)):
                yield Fault(name, list(getattr(self, name)), "must list whole numbers from 1")
        if self.depths_twin and self.depths is Depths.none:
            yield Fault("depths_twin", True, "has no effect with depths = none", "Set benchmark.depths=auto.")
        cut = self.depths not in (Depths.auto, Depths.none)
        distill = known.stages.get("distill")
        if cut and isinstance(distill, Distill) and distill.epochs == 0:
            rule = "cuts the distilled student, and distill.epochs = 0 distils none"
            yield Fault("depths", self.depths.value, rule, "Set it to none.")
        if self.depths_twin and known.stages and not any(stage.skipping > 0 for stage in known.stages.values()):
            rule = "has nothing to compare with: no stage drops layers in training"
            yield Fault("depths_twin", True, rule, "Set distill.layer_drop, for example to 0.2.")
        longest, model = known.longest, "student" if known.alone else "teacher"
        if known.only_answers and known.student is not None:
            longest, model = longest_row(known.student), "student"
        if longest is not None and max(self.tokens, default=0) > longest:
            yield Fault("tokens", list(self.tokens), f"must not exceed the {longest} tokens that the {model} takes")
        if cut and known.student is not None and not can_be_taken_apart(known.student):
            rule = f"cannot remove layers from a student of type {type_in_words(known.student)}"
            yield Fault("depths", self.depths.value, rule, "Set it to none.")

    def measure(self, state: State, label_student: Record | None, depths: list[DepthCurve]) -> Measurements:
        """Return the report's stages, artifacts and baselines, and ``depths`` beside them.

        All is measured against the teacher, or, where there is none, against the student that was given; a teacher
        that only answers has no speed to compare with. The
        ``differences`` of an entry are paired, by the name of what it is compared with: stages with the teacher and
        the stage before, the distilled student with ``labels_only`` too, artifacts with the ``student`` that they
        were made of and with the teacher, cheap baselines and the teacher's own ONNX with the teacher and every
        artifact, ``labels_only`` with the
        teacher.
        """
        bench = ScoredRows(state)
        student = bench.logits(state.given_student)
        first, last = state.records[0], state.records[-1]
        reference, ending = STAGES + first.name, STAGES + last.name
        cheap = tfidf(state.data) if self.tfidf else None
        places = self._places(bench, state, cheap)
        choosing = Choosing(state)
        stages, answers = [], bench.answers()
        teacher_metric = None if answers is None else bench.metric(answers)
        of_teacher = {} if answers is None else {first.name: answers}
        logits_of = of_teacher | {record.name: bench.logits(record.model) for record in state.records if record.model}
        twin = bench.logits(label_student.model) if label_student and label_student.model else None
        distilled = next((record.name for record in reversed(state.records) if record.role is Role.distillation), None)
        for before, record in zip([None, *state.records[:-1]], state.records, strict=True):
            about: dict[str, Any] = {
                "name": record.name, "kind": record.kind, "role": record.role.value, "seconds": record.seconds,
                "reused": record.reused, "details": record.details.report(), "notes": list(record.notes),
                "curves": [dict(point) for point in record.curves],
            }  # fmt: skip
            if (logits := logits_of.get(record.name)) is None:  # of a teacher that answers only some test rows
                stages.append(StageEntry(**about))
                continue
            names = [] if before is None else [first.name, before.name]
            others = {name: logits_of[name] for name in names if name in logits_of}
            if record.name == distilled and twin is not None:
                others["labels_only"] = twin
            runs = []
            if record is first and answers is not None:
                runs = runs_of(places, reference, reference, answers, answers, bench, teacher_metric)
            stages.append(
                StageEntry(
                    **about, **bench.scores(logits, teacher_metric),
                    **_shape(record.model), **_timed(places, STAGES + record.name, reference), runs=runs,
                    agreement=None if answers is None else state.data.task.agreement(logits, answers),
                    differences=bench.differences(logits, others), classes=bench.by_class(logits),
                )
            )  # fmt: skip
        artifacts, shipped = [], {}
        for artifact in state.artifacts:
            itself = artifact.key == state.given_student.key
            subject = ending if itself else ARTIFACTS + artifact.name
            home = home_of(places, subject)
            if artifact.unmeasured or home is None:
                artifacts.append(_unmeasured(artifact, places, subject))
                continue
            way = home.ways[subject][0]
            logits = student if itself else home.logits[way.label]
            difference = float(np.abs(logits - student).max())
            if not np.isfinite(difference):
                raise ModelError(
                    f"{artifact.name}: {not_finite(logits)}. "
                    f"Leave it out; finished work is kept, so the next run resumes from there."
                )
            if difference > artifact.tolerance:
                raise ModelError(
                    f"{artifact.name}: its logits differ from PyTorch's by up to {difference:.2g} on the test rows, "
                    f"more than export.{artifact.name}.tolerance = {artifact.tolerance:g}."
                )
            shipped[artifact.name] = logits
            compared = ({} if first.name == "student" else of_teacher) | ({} if itself else {"student": student})
            trained = bench.against_trained(artifact, logits)
            runs = runs_of(places, subject, reference, logits, student, bench, teacher_metric)
            artifacts.append(
                ArtifactEntry(
                    name=artifact.name, runtime=artifact.runtime, precision=artifact.precision, target=artifact.target,
                    path="student" if itself else f"artifacts/{artifact.name}", details=artifact.details.report(),
                    size_mib=size_mib(artifact.folder, WEIGHTS), seconds=artifact.seconds,
                    **bench.scores(logits, teacher_metric),
                    agreement=state.data.task.agreement(logits, student),
                    differences=bench.differences(logits, compared), classes=bench.by_class(logits),
                    validation=choosing.of_student() if itself else choosing.of_way(way, home.device, self.threads),
                    max_abs_difference=difference, latency=_latency(places, subject),
                    **_speed(home, subject, reference), **int8_of(way, home.device), runs=runs,
                    flipped=flips(state.data, logits, student), trained=trained, gate=artifact.gate,
                    notes=[*artifact.notes, *([_against(trained)] if trained else [])],
                )
            )  # fmt: skip
        compared = of_teacher | shipped
        cpu = next((place for place in places if place.device is CPU), None)
        baselines = [
            _of_the_cheap(model, bench, compared, teacher_metric, cpu, reference)
            for model in (constant(state.data), cheap)
            if model is not None
        ]
        baselines += _untrained(bench, places, reference, answers, compared, teacher_metric)
        if label_student is not None and twin is not None:
            baselines.append(_twin(bench, label_student, twin, of_teacher, teacher_metric))
        kept = {f"stages/{name}": logits for name, logits in logits_of.items()}
        kept |= {f"artifacts/{name}": logits for name, logits in shipped.items()}
        kept |= {} if twin is None else {"baselines/labels_only": twin}
        test = state.data.test
        answered = RowAnswers(test.fingerprint, test.known_labels, kept)
        return Measurements(stages=stages, artifacts=artifacts, baselines=baselines, depths=depths, answers=answered)

    def _places(self, scores: ScoredRows, state: State, cheap: Cheap | None) -> list[OnDevice]:
        """Return what was measured on each device, on the CPU with the cheap model beside."""
        timing, chosen = self.timing(), self.chosen_devices()
        beside = {} if cheap is None else {cheap.figures.name: cheap.answer}
        return [
            measure_on(device, scores, state, timing, first=device is chosen[0], beside=beside if device is CPU else {})
            for device in chosen
        ]

    def chosen_devices(self) -> list[Device]:
        """Return the devices to measure on."""
        return [DEVICES[name] for name in self.devices or devices_here()]

    def timing(self) -> Timing:
        """Return how long is timed, and on what."""
        return Timing(
            threads=self.threads, rows=self.rows, batches=list(self.batches), tokens=list(self.tokens),
            seconds=self.seconds,
        )  # fmt: skip


def _of_the_cheap(
    cheap: Cheap, bench: ScoredRows, others: Mapping[str, Array], teacher_metric: float | None, cpu: OnDevice | None,
    reference: str,
) -> BaselineEntry:  # fmt: skip
    """Return a cheap model's figures; its speedup is that of texts to answers, tokenization on both sides."""
    return structs.replace(
        cheap.figures,
        differences=bench.differences(cheap.logits, others),
        classes=bench.by_class(cheap.logits),
        retained=share(cheap.figures.metrics[bench.state.data.task.main_metric], teacher_metric),
        latency=[convert(timing, Latency) for timing in (cpu.latency.get(cheap.figures.name, []) if cpu else [])],
        **(speeds_of_the_cheap(cpu, cheap.figures.name, reference) if cpu else {}),
    )


def _untrained(
    bench: ScoredRows, places: Sequence[OnDevice], reference: str, answers: Array | None, others: Mapping[str, Array],
    teacher_metric: float | None,
) -> Iterator[BaselineEntry]:  # fmt: skip
    """Yield what the teacher's own deployable forms are worth, ``answers`` being the teacher's."""
    task = bench.state.data.task
    for artifact in bench.state.untrained:
        subject = BASELINES + artifact.name
        about: dict[str, Any] = {
            "name": artifact.name, "kind": _UNTRAINED[artifact.name], "runtime": artifact.runtime,
            "precision": artifact.precision, "seconds": artifact.seconds, "notes": list(artifact.notes),
        }  # fmt: skip
        home = home_of(places, subject)
        logits = home.logits[home.ways[subject][0].label] if home else None
        if home is None or logits is None or answers is None or not np.isfinite(logits).all():
            failures = [failure.reason for place in places for failure in place.failures if failure.subject == subject]
            broken = not_finite(logits) if logits is not None else "; ".join(dict.fromkeys(failures))
            yield BaselineEntry(**about, not_measured=artifact.unmeasured or broken)
            continue
        yield BaselineEntry(
            **about, path=subject, size_mib=size_mib(artifact.folder, WEIGHTS),
            **bench.scores(logits, teacher_metric), agreement=task.agreement(logits, answers),
            differences=bench.differences(logits, others), max_abs_difference=float(np.abs(logits - answers).max()),
            latency=_latency(places, subject), **_speed(home, subject, reference),
            **int8_of(home.ways[subject][0], home.device),
            runs=runs_of(places, subject, reference, logits, answers, bench, teacher_metric),
        )  # fmt: skip


_UNTRAINED = {
    TEACHER_ONNX: "the teacher itself in ONNX Runtime, without training",
    TEACHER_INT8: "the teacher itself in dynamic int8, without training",
}


def _twin(
    bench: ScoredRows, trained: Record, logits: Array, others: Mapping[str, Array], teacher_metric: float | None
) -> BaselineEntry:
    return BaselineEntry(
        name="labels_only", kind=f"the same student, before pruning, trained on {_labels(bench.state.data)} alone",
        runtime="pytorch", precision="fp32", seconds=trained.seconds,
        **bench.scores(logits, teacher_metric), **_shape(trained.model),
        differences=bench.differences(logits, others),
        curves=[dict(point) for point in trained.curves],
        notes=["same start, rows, steps and seed as in distillation, without preparations; the same speed"],
    )  # fmt: skip


def _labels(data: Dataset) -> str:
    return "the teacher's bare answers" if "training" in data.answered else "labels"


def _unmeasured(artifact: Artifact, places: Sequence[OnDevice], subject: str) -> ArtifactEntry:
    """Return what is known of an artifact that cannot be run on any of the devices."""
    runtime = RUNTIMES.get(artifact.runtime)
    executed = runtime.executed(artifact.folder, CPU) if runtime and artifact.precision in runtime.counted else None
    failures = [failure for place in places for failure in place.failures if failure.subject == subject]
    return ArtifactEntry(
        name=artifact.name, runtime=artifact.runtime, precision=artifact.precision, details=artifact.details.report(),
        path=f"artifacts/{artifact.name}", size_mib=artifact.size_mib,
        not_measured=artifact.unmeasured or "; ".join(dict.fromkeys(failure.reason for failure in failures)),
        **counted(executed), seconds=artifact.seconds, gate=artifact.gate, notes=list(artifact.notes),
    )  # fmt: skip


def rejected(state: State) -> list[RejectedEntry]:
    """Return what is known of the artifacts that lose too much."""
    return [
        RejectedEntry(
            name=rejection.artifact.name, gate=rejection.gate, runtime=rejection.artifact.runtime,
            precision=rejection.artifact.precision, path=f"rejected/{rejection.artifact.name}",
            size_mib=size_mib(rejection.artifact.folder, WEIGHTS), seconds=rejection.artifact.seconds,
            instead=rejection.instead, why_no_costs=rejection.why_no_costs,
            costs=[CostEntry(part=cost.part, loss=cost.loss, drop=cost.drop) for cost in rejection.costs],
            notes=list(rejection.artifact.notes),
        )
        for rejection in state.rejected
    ]  # fmt: skip


def _timed(places: Sequence[OnDevice], subject: str, reference: str) -> dict[str, Any]:
    """Return the timings and the speedup of what a stage left behind; nothing where that is not a model."""
    if subject not in places[0].ways:
        return {}
    speeds = _speed(places[0], subject, reference)
    return {"latency": _latency(places, subject), "speedup": speeds["speedup"], "over_int8": speeds["over_int8"]}


def _latency(places: Sequence[OnDevice], subject: str) -> list[Latency]:
    return [convert(entry, Latency) for place in places for entry in place.entries(subject)]


def _speed(place: OnDevice, subject: str, reference: str) -> dict[str, Any]:
    """Return the speed of a subject's first variant on a device."""
    return speed(place, place.ways[subject][0].label, reference)


def _against(trained: AgainstTrained) -> str:
    return (
        f"agrees with the trained model on {trained.agreement:.2%} of {trained.rows:,} test rows; "
        f"logits differ by at most {trained.max_abs_difference:.2g}"
    )


def _shape(saved: Model | None) -> dict[str, Any]:
    """Return parameters, size and each layer's heads and feed-forward units of a saved model; none of no model."""
    if saved is None:
        return {}
    model = load_model(saved.folder)
    layers = []
    if known_family(model.config) is not None:
        shapes = zip(kept_heads(model.config), neurons(model.config), strict=True)
        layers = [LayerShape(heads=len(heads), neurons=width) for heads, width in shapes]
    return {"parameters": parameters(model), "size_mib": size_mib(saved.folder, WEIGHTS), "layers": layers}
