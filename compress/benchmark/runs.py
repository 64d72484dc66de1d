"""One model or artifact on every device and in every variant: what report.json keeps as ``runs``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.benchmark.figures import TEACHER_INT8, DeviceRun, Int8Part
from compress.benchmark.scores import ScoredRows
from compress.benchmark.way import Way
from compress.benchmark.ways import BASELINES, OnDevice
from compress.runtimes.base import Executed
from compress.runtimes.devices import Device
from compress.tasks.base import Array

OWN_INT8 = BASELINES + TEACHER_INT8


def home_of(places: Sequence[OnDevice], subject: str) -> OnDevice | None:
    """Return the first device on which a subject ran, whose figures stand for it; None where it ran on none."""
    return next((place for place in places if place.ways.get(subject)), None)


def runs_of(
    places: Sequence[OnDevice], subject: str, reference: str, logits: Array, expected: Array, scores: ScoredRows,
    teacher_metric: float | None,
) -> list[DeviceRun]:  # fmt: skip
    """Return what a subject is worth, and how fast it is, in every way of running it; or why it does not run.

    ``logits`` are its own on its first device, ``expected`` those that it should give. Speedups are against the
    subject ``reference``, in its first variant on the same device. Nothing is returned for a single way.
    """
    every = []
    for place in places:
        every += [
            DeviceRun(device=place.device.name, variant=failure.variant, not_measured=failure.reason)
            for failure in place.failures
            if failure.subject == subject
        ]
        for way in place.ways.get(subject, []):
            answers = place.logits.get(way.label, logits)
            every.append(_run(place, way, reference, answers, expected, scores, teacher_metric))
    return every if len(every) > 1 else []


def _run(
    place: OnDevice, way: Way, reference: str, logits: Array, expected: Array, scores: ScoredRows,
    teacher_metric: float | None,
) -> DeviceRun:  # fmt: skip
    about: dict[str, Any] = {
        "device": place.device.name, "variant": way.variant.name,
        "precision": way.variant.precision or way.precision,
    }  # fmt: skip
    if not np.isfinite(logits).all():
        return DeviceRun(**about, not_measured=not_finite(logits))
    return DeviceRun(
        **about,
        **scores.scores(logits, teacher_metric),
        agreement=scores.state.data.task.agreement(logits, expected),
        max_abs_difference=float(np.abs(logits - expected).max()),
        **speed(place, way.label, reference),
        int8_matmuls=int8_of(way, place.device)["int8_matmuls"],
    )


def not_finite(logits: Array, rows: str = "test") -> str:
    """Return on how many of those rows logits are not finite, as a clause."""
    broken = int((~np.isfinite(logits).all(-1)).sum())
    return f"its logits are not finite on {broken:,} of {len(logits):,} {rows} rows"


def speed(place: OnDevice, label: str, reference: str) -> dict[str, Any]:
    """Return a way's rows per second, and its speedups on the same device.

    They are against a subject's first variant and against the teacher's own int8.
    """
    own, other = place.median_ms(label), place.reference_ms(reference)
    return speedups(own, other, place.reference_ms(OWN_INT8)) | {"rows_per_second": 1e3 / own if own else None}


def speedups(own: float | None, reference: float | None, int8: float | None) -> dict[str, float | None]:
    """Return speedups as fields of an entry, of its median and of those that it is compared with, in milliseconds."""
    return {
        "speedup": reference / own if own and reference else None,
        "over_int8": int8 / own if own and int8 else None,
    }


def speeds_of_the_cheap(cpu: OnDevice, name: str, reference: str) -> dict[str, float | None]:
    """Return the speedups of a model that reads texts itself: tokenization is on both sides."""
    others = (cpu.reference_ms(subject, tokenization=True) for subject in (reference, OWN_INT8))
    return speedups(cpu.median_ms(name, tokenization=True), *others)


def int8_of(way: Way, device: Device) -> dict[str, Any]:
    """Return how many matrix products run in int8 of how many, and which by part of the model."""
    return counted(way.runtime.executed(way.folder, device) if way.precision in way.runtime.counted else None)


def counted(executed: Executed | None) -> dict[str, Any]:
    """Return counts as fields of an entry."""
    if executed is None:
        return {"int8_matmuls": None}
    parts = [Int8Part(part=part.part, int8=list(part.int8), floats=list(part.floats)) for part in executed.parts]
    return {"int8_matmuls": (executed.int8, executed.products), "int8_parts": parts}
