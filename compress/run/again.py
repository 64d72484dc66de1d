"""The timings of a finished run, measured again from its folder; nothing else is done again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import convert, structs

from compress.benchmark.baselines import TFIDF, tfidf
from compress.benchmark.figures import DeviceRun, Entry, Latency
from compress.benchmark.runs import speed, speeds_of_the_cheap
from compress.benchmark.scores import ScoredRows
from compress.benchmark.ways import ARTIFACTS, BASELINES, STAGES, OnDevice, latencies, ways_on
from compress.data import Dataset
from compress.errors import CompressError
from compress.machine import describe
from compress.pipeline.artifact import Artifact
from compress.pipeline.model import Model
from compress.pipeline.record import Record, Role
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.report import report_texts
from compress.report.document import load_report, parse
from compress.report.document import plain as plain_report
from compress.report.schema import Report
from compress.report.verdict import conclude
from compress.run.folder import model_card
from compress.run.marker import Marker, Source, read_marker, write_files
from compress.run.place import alone, identity
from compress.runtimes.devices import CPU
from compress.runtimes.pytorch import torch_threads

if TYPE_CHECKING:
    from compress.run.recipe import Recipe


def measure_again(folder: Path, recipe: Recipe) -> Report:
    """Return the report of a finished run with new timings, and write it into the run's folder.

    ``recipe`` is the run's. Models are timed as they lie in the folder; what they answer is not asked again. The cache
    has the new timings, too, so that they stay when the run is repeated. Raises
    CompressError where the run, its data or the machine are no longer those of the report.
    """
    report, marker = load_report(folder), read_marker(folder)
    if marker is None or not marker.files:
        raise CompressError(f"{folder}: its run was written by a version that did not list its files. Run it again.")
    here = describe(recipe.benchmark.threads)
    if report.machine.get("cpu") not in (None, here["cpu"]) or report.machine.get("gpu") != here["gpu"]:
        raise CompressError(
            f"{folder}: was measured on another machine ({report.machine.get('cpu')}), and this is a {here['cpu']}. "
            "Run the recipe here: its figures belong together."
        )
    data = recipe.data.load(recipe.task, recipe.seed, recipe.teacher.class_names)
    if data.answered:
        raise CompressError(f"{folder}: the labels of its rows are its teacher's answers. Run the recipe again.")
    if identity(recipe, data.fingerprint) != marker.run:
        raise CompressError(f"{folder}: its data or recipe.yaml has changed since. Run the recipe again.")
    with alone(folder):
        new = _timed(folder, report, recipe, data)
        _write(folder, marker, new)
    return new


def _timed(folder: Path, report: Report, recipe: Recipe, data: Dataset) -> Report:
    state, benchmark = _state(folder, report, recipe, data), recipe.benchmark
    scores, places = ScoredRows(state), []
    cheap = tfidf(data) if any(baseline.name == TFIDF for baseline in report.baselines) else None
    for device in benchmark.chosen_devices():
        place = ways_on(device, state)
        beside = {TFIDF: cheap.answer} if cheap is not None and device is CPU else {}
        with device.active(), torch_threads(benchmark.threads):
            place.latency = latencies(device, place.ways, scores, state, benchmark.timing(), beside, again=True)
        places.append(place)
    reference, ending = STAGES + report.stages[0].name, STAGES + report.stages[-1].name
    cpu = next((place for place in places if place.device is CPU), None)

    def again(entry: Entry, subject: str) -> dict[str, Any]:
        found = [place for place in places if place.ways.get(subject)]
        if not found:
            return {}
        speeds = speed(found[0], found[0].ways[subject][0].label, reference)
        rate = {"rows_per_second": speeds.pop("rows_per_second")} if entry.rows_per_second is not None else {}
        latency = [convert(timing, Latency) for place in places for timing in place.entries(subject)]
        return {"latency": latency, "runs": _runs(entry.runs, places, subject, reference), **speeds, **rate}

    baselines = []
    for baseline in report.baselines:
        changes = again(baseline, BASELINES + baseline.name)
        if baseline.name == TFIDF and cpu is not None:
            latency = [convert(timing, Latency) for timing in cpu.latency.get(TFIDF, [])]
            changes = {"latency": latency, **speeds_of_the_cheap(cpu, TFIDF, reference)}
        baselines.append(structs.replace(baseline, **changes))
    new = structs.replace(
        report,
        stages=[structs.replace(stage, **again(stage, STAGES + stage.name)) for stage in report.stages],
        artifacts=[
            structs.replace(made, **again(made, ending if made.path == "student" else ARTIFACTS + made.name))
            for made in report.artifacts
        ],
        baselines=baselines,
        timed_again=datetime.now().astimezone().isoformat(timespec="seconds"),
    )
    return conclude(parse(plain_report(new)))


def _state(folder: Path, report: Report, recipe: Recipe, data: Dataset) -> State:
    """Return the models of a run as its last stage left them, in the run's folder."""

    def model(path: Path) -> Model:
        return Model(path, key=str(path))

    def form(entry: Entry) -> Artifact:
        place = folder / entry.path
        return Artifact(
            name=entry.name, runtime=entry.runtime, precision=entry.precision, folder=place, key=str(place),
            unmeasured=entry.not_measured,
        )  # fmt: skip

    records = []
    for number, stage in enumerate(report.stages):
        place = folder / "stages" / f"{number:02d}-{stage.name}"
        records.append(
            Record(
                name=stage.name, kind=stage.kind, role=Role(stage.role), model=model(place) if place.is_dir() else None,
                seconds=0.0, reused=True,
            )
        )  # fmt: skip
    return State.begin(
        data, Workshop(recipe.cache_folder), recipe.seed, student=model(folder / "student"), records=tuple(records),
        artifacts=tuple(map(form, report.artifacts)),
        untrained=tuple(form(baseline) for baseline in report.baselines if baseline.path),
    )  # fmt: skip


def _runs(runs: Sequence[DeviceRun], places: Sequence[OnDevice], subject: str, reference: str) -> list[DeviceRun]:
    """Return what a subject did on each device and in each variant, at its new speed."""
    ways = {
        (place.device.name, way.variant.name): speed(place, way.label, reference)
        for place in places
        for way in place.ways.get(subject, ())
    }
    return [structs.replace(run, **ways.get((run.device, run.variant), {})) for run in runs]


def _write(folder: Path, marker: Marker, report: Report) -> None:
    sources: dict[str, Source] = {name: folder / name for name in marker.files}
    write_files(
        folder,
        marker.run,
        sources | {"student/README.md": model_card(folder / "student", report)} | report_texts(report),
    )
