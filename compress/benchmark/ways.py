"""What is run on one device: the models after each stage and the artifacts, in every way that is worth comparing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.benchmark.latency import Reads, grid, real_rows
from compress.benchmark.scores import CannotRunError, ScoredRows
from compress.benchmark.way import Way
from compress.files import hash_json, write_json
from compress.machine import describe
from compress.models.folder import CONFIG
from compress.pipeline.cache import PRODUCT
from compress.pipeline.rewrite import PROJECTIONS
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.runtimes.devices import Device
from compress.runtimes.pytorch import PyTorch, torch_threads
from compress.runtimes.registry import RUNTIMES
from compress.sealed import contents_of
from compress.settings import plain
from compress.tasks.base import Array

STAGES, ARTIFACTS, BASELINES = "stages/", "artifacts/", "baselines/"  # before the names of subjects
CARD = "README.md"
FILE = "latency.json"  # the timings of all ways, by label
Entry = dict[str, Any]  # of report.json's "latency"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long is timed, and on what: the benchmark's settings of the same names."""

    threads: int
    rows: int
    batches: Sequence[int]
    tokens: Sequence[int]
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Why a subject, or one variant of it, did not run on a device."""

    subject: str
    variant: str  # "" where no variant runs
    reason: str  # as a clause


class _Incomplete(Exception):
    """Some of the timings failed."""

    def __init__(self, entries: dict[str, list[Entry]]) -> None:
        super().__init__()
        self.entries = entries


@dataclass
class OnDevice:
    """What was measured on one device, and why the rest was not."""

    device: Device
    ways: dict[str, list[Way]]  # by subject, the reference first
    logits: dict[str, Array] = field(default_factory=dict)  # by label, of the ways that were scored here
    latency: dict[str, list[Entry]] = field(default_factory=dict)  # by label
    failures: list[Failure] = field(default_factory=list)

    def entries(self, subject: str) -> list[Entry]:
        """Return all timings of a subject; empty where it did not run."""
        return [entry for way in self.ways.get(subject, []) for entry in self.latency.get(way.label, [])]

    def reference_ms(self, subject: str, *, tokenization: bool = False) -> float | None:
        """Return `median_ms` of a subject's first variant; None where it did not run here."""
        ways = self.ways.get(subject)
        return self.median_ms(ways[0].label, tokenization=tokenization) if ways else None

    def median_ms(self, label: str, *, tokenization: bool = False) -> float | None:
        """Return a way's median at batch 1 on real rows, without copies, in milliseconds."""
        return next(
            (
                float(entry["median_ms"])
                for entry in self.latency.get(label, [])
                if entry["tokens"] == "real" and entry["tokenization"] == tokenization and not entry.get("copies")
                if "median_ms" in entry
            ),
            None,
        )


def measure_on(
    device: Device, scores: ScoredRows, state: State, timing: Timing, *, first: bool, beside: Mapping[str, Reads]
) -> OnDevice:
    """Return what stages and artifacts of a run do on a device, from the cache where it is known.

    Models ``beside`` them are timed in the same turns; the training rows decide what they are.
    On the ``first`` device of a run, an artifact that fails although its runtime is there is an error. Elsewhere it
    is left out, with the reason.
    """
    found = ways_on(device, state)
    with device.active(), torch_threads(timing.threads):
        for subject, ways in found.ways.items():
            found.ways[subject] = [way for way in ways if _runs(found, way, scores, timing, first=first)]
        found.latency = latencies(device, found.ways, scores, state, timing, beside)
    return found


def _runs(found: OnDevice, way: Way, scores: ScoredRows, timing: Timing, *, first: bool) -> bool:
    """Return whether a way of running works; its logits, or the reason, are kept in ``found``."""
    if not way.in_grid or (first and way.subject.startswith(STAGES) and not way.variant.name):
        return True  # stages are scored in batches; where a model has several variants, each is run row by row
    try:
        found.logits[way.label] = scores.of_way(way, found.device, timing.threads)
    except CannotRunError as failure:
        if first and way is found.ways[way.subject][0] and not way.subject.startswith(BASELINES):
            raise failure.reason from failure
        found.failures.append(Failure(way.subject, way.variant.name, str(failure)))
        return False
    return True


def ways_on(device: Device, state: State) -> OnDevice:
    """Return what runs on a device, and why the rest does not."""
    ways: dict[str, list[Way]] = {}
    failures = []
    pytorch = RUNTIMES[PyTorch.name]
    ends = {state.records[0].name, state.records[-1].name}
    for record in state.records:
        model = record.model
        if model is None:  # of a teacher that only answers
            continue
        variants = pytorch.variants(model.folder, device)
        ways[STAGES + record.name] = [
            Way(
                subject=STAGES + record.name, runtime=pytorch, folder=model.folder, key=model.key,
                precision="fp32", variant=variant, in_grid=record.name in ends,
            )
            for variant in (variants if record.name in ends else variants[:1])
        ]  # fmt: skip
    made = [(ARTIFACTS, artifact) for artifact in state.artifacts if artifact.key != state.given_student.key]
    for kind, artifact in [*made, *((BASELINES, artifact) for artifact in state.untrained)]:
        subject = kind + artifact.name
        if artifact.unmeasured:
            continue
        runtime = RUNTIMES[artifact.runtime]
        if why := runtime.unavailable(artifact.folder, device):
            failures.append(Failure(subject, "", why))
            continue
        ways[subject] = [
            Way(
                subject=subject, runtime=runtime, folder=artifact.folder, key=artifact.key,
                precision=artifact.precision, variant=variant, in_grid=True,
            )
            for variant in runtime.variants(artifact.folder, device)
        ]  # fmt: skip
    return OnDevice(device, ways, failures=failures)


def latencies(
    device: Device, ways: Mapping[str, Sequence[Way]], scores: ScoredRows, state: State, timing: Timing,
    beside: Mapping[str, Reads], *, again: bool = False,
) -> dict[str, list[Entry]]:  # fmt: skip
    """Return the timings of all ways, by label, measured alternately: real rows, then the grid.

    They are kept in the cache where nothing failed: what had too little memory once is tried again. Noisy ones that
    are found there are measured once more, and the set with fewer noisy figures stays. ``again`` measures in any case,
    and what was measured last stays.
    """
    kept: dict[str, list[Entry]] = {}

    def work(folder: Path) -> None:
        entries = _time_ways(device, ways, scores, timing, beside)
        if any("not_measured" in timing for timings in entries.values() for timing in timings):
            raise _Incomplete(entries)
        write_json(folder / FILE, kept if kept and _noisy(kept) < _noisy(entries) else entries)

    different = {way.folder: way for some in ways.values() for way in some}
    contents = {folder: _contents(folder) for folder in different}
    made_with = [
        device.identity, {way.label: contents[way.folder] for some in ways.values() for way in some}, plain(timing),
        describe(timing.threads), scores.rows.fingerprint,
        [list(beside), state.data.train.fingerprint if beside else None],
    ]  # fmt: skip
    kind = Kind("latency", revision=5)
    try:
        product = state.workshop.make(kind, made_with, work, again=again)
        if product.reused and _noisy(found := _read(product.folder)):
            kept.update(found)
            product = state.workshop.make(kind, made_with, work, again=True)
    except _Incomplete as incomplete:
        return kept or incomplete.entries
    return _read(product.folder)


def _contents(folder: Path) -> str:
    """Return a hash of what is run, the same in the cache and in a run's folder.

    In the latter config.json says more, which changes no timing, and there is a model card.
    """
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return hash_json(contents_of(folder, files - {CONFIG, CARD, PRODUCT, PROJECTIONS}))


def _noisy(entries: Mapping[str, Sequence[Entry]]) -> int:
    return sum("noise" in timing for timings in entries.values() for timing in timings)


def _read(folder: Path) -> dict[str, list[Entry]]:
    entries: dict[str, list[Entry]] = json.loads((folder / FILE).read_text())
    return entries


def _time_ways(
    device: Device, ways: Mapping[str, Sequence[Way]], scores: ScoredRows, timing: Timing, beside: Mapping[str, Reads]
) -> dict[str, list[Entry]]:
    """Return the timings of all ways, by label, and of models ``beside`` them, by name, measured now."""
    every = {way.label: way for some in ways.values() for way in some}
    test = scores.rows
    texts = list(zip(test.texts, test.pairs, strict=True)) if test.pairs is not None else [(t,) for t in test.texts]
    sessions = {
        label: way.runtime.load(way.folder, device, threads=timing.threads, variant=way.variant.name)
        for label, way in every.items()
    }
    readers = {label: scores.reader(way.folder) for label, way in every.items()}
    result = real_rows(
        sessions, readers, texts, rows=timing.rows, seconds=timing.seconds, threads=timing.threads, beside=beside
    )
    in_grid = {label: sessions[label] for label, way in every.items() if way.in_grid}
    more = grid(
        in_grid, {label: readers[label].tokenizer for label in in_grid},
        batches=timing.batches, lengths=timing.tokens, seconds=timing.seconds, threads=timing.threads,
    )  # fmt: skip
    return {label: timings + more.get(label, []) for label, timings in result.items()}
