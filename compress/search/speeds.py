"""How fast every candidate is before any is trained: weights that are not trained change no latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.benchmark.scores import ScoredRows
from compress.benchmark.untrained import untrained
from compress.benchmark.way import Way
from compress.benchmark.ways import ARTIFACTS, BASELINES, STAGES, Timing, latencies
from compress.errors import DamagedError, StorageError, in_one_line
from compress.export.onnx import Onnx
from compress.files import size_mib
from compress.onnx.folder import onnx_of
from compress.onnx.storage import SUFFIXES
from compress.pipeline.artifact import Artifact
from compress.pipeline.state import State
from compress.quantize.int8 import DynamicInt8
from compress.run.recipe import Recipe
from compress.runtimes.devices import CPU
from compress.runtimes.pytorch import PyTorch, torch_threads
from compress.runtimes.registry import RUNTIMES

TEACHER = "teacher"
FORMS = ("onnx", "dynamic")  # of every candidate, and in that order of the teacher


@dataclass(frozen=True)
class Speed:
    """The latency of one form of a model: milliseconds as `deciding` has them, one row at its real length."""

    name: str  # of the candidate, or "teacher"
    form: str  # "eager" (PyTorch), "onnx" (fp32) or "dynamic" (int8)
    ms: float
    mib: float
    noise: str = ""  # why the timing is noisy, where it is


@dataclass(frozen=True)
class Speeds:
    """All forms of all candidates and of the teacher, measured in the same turns on validation rows."""

    every: tuple[Speed, ...]

    @property
    def teacher_ms(self) -> float:
        """The teacher's in eager PyTorch."""
        return next(speed.ms for speed in self.every if (speed.name, speed.form) == (TEACHER, "eager"))

    def fastest(self, name: str) -> Speed:
        """Return the fastest form that can be shipped."""
        return min((s for s in self.every if s.name == name and s.form != "eager"), key=lambda speed: speed.ms)

    def by_form(self, name: str) -> dict[str, float]:
        """Return the milliseconds of all forms of a candidate, or of the teacher."""
        return {speed.form: speed.ms for speed in self.every if speed.name == name}

    def of(self, name: str, form: str) -> Speed | None:
        """Return one form; None where it cannot be made."""
        return next((speed for speed in self.every if (speed.name, speed.form) == (name, form)), None)

    def and_later(self, later: Speeds) -> Speeds:
        """Return these and what was measured later, times what the teacher took longer or shorter in those turns."""
        drift, known = self.teacher_ms / later.teacher_ms, {speed.name for speed in self.every}
        more = (replace(speed, ms=drift * speed.ms) for speed in later.every if speed.name not in known)
        return Speeds((*self.every, *more))


@dataclass(frozen=True)
class Exported:
    """Students in the forms that can be shipped, by name, and why others cannot be exported."""

    forms: Mapping[str, Sequence[Artifact]]
    failures: Mapping[str, str] = field(default_factory=dict)  # as sentences


def exported(students: Mapping[str, State]) -> Exported:
    """Return the students that these states hold, as ONNX in fp32 and int8. Raises StorageError."""
    forms: dict[str, Sequence[Artifact]] = {}
    failures: dict[str, str] = {}
    for name, state in students.items():
        try:
            graph = onnx_of(state.given_student, state)
            forms[name] = Onnx().artifact("onnx", graph), DynamicInt8().artifact("dynamic", graph, state)
        except (StorageError, DamagedError):
            raise
        except Exception as error:  # exporters' errors share no base class
            failures[name] = f"it cannot be exported: {in_one_line(error)}."
    return Exported(forms, failures)


def own_forms(state: State) -> list[Artifact]:
    """Return the teacher's own ONNX forms that can be made, in the order of `FORMS`."""
    return [artifact for artifact in untrained(state) if not artifact.unmeasured]


def measured(
    state: State, students: Mapping[str, Sequence[Artifact]], own: Sequence[Artifact], recipe: Recipe
) -> Speeds:
    """Return the speeds of students by name, of the teacher and of its ``own`` forms, timed in the same turns.

    ``state`` is that after the teacher. Raises whatever a runtime raises for a model.
    """
    teacher = state.given_teacher
    ways = [_way(STAGES + TEACHER, PyTorch.name, "fp32", teacher.folder, teacher.key)]
    ways += [_of_artifact(BASELINES + form, artifact) for form, artifact in zip(FORMS, own, strict=False)]
    for name, forms in students.items():
        ways += [_of_artifact(f"{ARTIFACTS}{name}/{artifact.name}", artifact) for artifact in forms]
    benchmark = recipe.benchmark
    timing = Timing(threads=benchmark.threads, rows=benchmark.rows, batches=[], tokens=[], seconds=benchmark.seconds)
    scores = ScoredRows(state, state.data.validation)
    with CPU.active(), torch_threads(timing.threads):
        entries = latencies(CPU, {way.subject: [way] for way in ways}, scores, state, timing, {})
    figure = deciding([entry for own in entries.values() for entry in own])
    return Speeds(tuple(speed for way in ways if (speed := _speed(way, entries[way.label], figure)) is not None))


def deciding(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the figure by which timings are compared: medians, or where any is noisy, those of the quietest turns.

    On a busy machine a long call is interrupted more often than a short one, so medians flatter the fast.
    """
    measured = [entry for entry in entries if "not_measured" not in entry]
    noisy = any("noise" in entry for entry in measured)
    return "quiet_ms" if noisy and all("quiet_ms" in entry for entry in measured) else "median_ms"


def _speed(way: Way, entries: Sequence[dict[str, Any]], figure: str) -> Speed | None:
    """Return the speed of a way of running; None where it did not run."""
    name, _, form = way.subject.partition("/")[2].rpartition("/")
    name, form = (name, form) if name else (TEACHER, form if form in FORMS else "eager")
    entry = next(entry for entry in entries if not entry["tokenization"])
    if "not_measured" in entry:
        return None
    mib = size_mib(way.folder, (".safetensors", *SUFFIXES))
    return Speed(name, form, float(entry[figure]), mib, entry.get("noise", ""))


def _of_artifact(subject: str, artifact: Artifact) -> Way:
    return _way(subject, artifact.runtime, artifact.precision, artifact.folder, artifact.key)


def _way(subject: str, runtime: str, precision: str, folder: Path, key: str) -> Way:
    run = RUNTIMES[runtime]
    return Way(
        subject=subject, runtime=run, folder=folder, key=key, precision=precision,
        variant=run.variants(folder, CPU)[0], in_grid=True,
    )  # fmt: skip
