"""What a report concludes from its own figures, good or bad."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from msgspec import structs

from compress.benchmark.figures import ArtifactEntry, Chosen, Entry
from compress.report import gates
from compress.report.paired_words import in_words, sides, turned
from compress.report.schema import Report
from compress.report.shipping import beaten, shipping

STUDENT, DISTILLATION, PRUNING = "student", "distillation", "pruning"  # roles of stages
FLOATS = ("fp32", "fp16")
LITTLE = 1.15  # a pruning that gives less speed is pointed out


def conclude(report: Report) -> Report:
    """Return the report with its recommendation, whether to ship it, and verdicts."""
    report = structs.replace(report, recommended=recommend(report))
    report = structs.replace(report, shipping=shipping(report))
    return structs.replace(report, verdicts=verdicts(report))


def recommend(report: Report) -> str | None:
    """Return the fastest artifact that validation rows do not show to be worse than the student; None without any.

    The interval of its paired difference to the student reaches 0. Test rows have no say: what they tell of the one
    that is chosen is not flattered by the choice. Artifacts for another device are left out: what they are worth there
    was not measured.
    """
    good = [
        artifact
        for artifact in report.artifacts
        if artifact.measured and not artifact.target and artifact.validation and _keeps(artifact.validation)
    ]
    return max(good, key=_speed).name if good else None


def _keeps(validation: Chosen) -> bool:
    """Return whether validation rows do not show a loss against the student."""
    return validation.difference is not None and validation.difference.high >= 0


def verdicts(report: Report) -> list[str]:
    """Return plain sentences, each from figures of this report.

    Whether one model is better than another is decided by paired tests on the same rows (`compress.tasks.paired`).
    """
    measured = [artifact for artifact in report.artifacts if artifact.measured]
    return [
        *_of_own_int8(report),
        *_of_distillation(report),
        *_slow_prunings(report),
        *_losses(report, measured),
        *_of_low_precision(report, measured),
        *gates.findings(report),
    ]


def _of_own_int8(report: Report) -> Iterator[str]:
    """Yield how the recommended artifact compares with the teacher's own int8, where that does not forbid it."""
    best, own = report.best, report.own_int8
    difference = own.differences.get(best.name) if best and own else None
    if best is None or difference is None or best.over_int8 is None or beaten(best.over_int8, turned(difference)):
        return
    change = in_words(turned(difference)) + ("" if difference.clear else ", which may be chance")
    yield f"{best.name} is {best.over_int8:.2f}× as fast as the teacher's own int8, which took no training: {change}."


def _of_distillation(report: Report) -> Iterator[str]:
    """Yield what distillation did for the student that labels alone did not."""
    distilled = next((stage for stage in reversed(report.stages) if stage.role == DISTILLATION), None)
    difference = distilled.differences.get("labels_only") if distilled else None
    if not (distilled and difference):
        return
    alone = "the teacher's bare answers" if "training" in report.dataset.answered else "labels"
    effect = "made no clear difference in this run"
    if difference.clear:
        effect = "helped" if difference.value > 0 else "harmed"
    yield (
        f"Distillation {effect}: {in_words(difference)}, against the same student trained on {alone} alone "
        f"({report.test_rows or 0:,} rows, one seed)."
    )
    before = report.stages[1 : report.stages.index(distilled)]
    if prepared := [stage.name for stage in before if stage.role not in (STUDENT, PRUNING)]:
        without = ", ".join(prepared)
        yield f"The student trained on {alone} alone went without {without}, and so was trained for fewer steps."


def _speed(entry: Entry) -> float:
    """Return how fast a model is: its speedup, or rows per millisecond where no teacher was timed."""
    if entry.speedup is not None:
        return entry.speedup
    timing = entry.headline()
    return 1 / timing.median_ms if timing and timing.median_ms else 0.0


def _speed_in_words(entry: Entry) -> str:
    return f"{entry.speedup:.2f}×" if entry.speedup is not None else f"{1 / _speed(entry):.3g} ms"


def _of_low_precision(report: Report, artifacts: list[ArtifactEntry]) -> Iterator[str]:
    """Yield where no integers run, and which artifacts in integers are not faster than the fastest one in floats."""
    full = max((artifact for artifact in artifacts if artifact.precision in FLOATS), key=_speed, default=None)
    for artifact in artifacts:
        if artifact.precision in FLOATS or artifact.target:
            continue
        if artifact.int8_matmuls is not None and artifact.int8_matmuls[0] == 0:
            yield f"{artifact.name}: no matrix product runs in int8 in ONNX Runtime's optimized graph."
        if full is None or _speed(artifact) > _speed(full):
            continue
        advice = f"ship {report.recommended}"
        if report.recommended == artifact.name and full.validation and not _keeps(full.validation):
            advice = f"recommended all the same: on validation rows {full.name} answers worse than the student"
        yield (
            f"{artifact.name} in {artifact.precision} is not faster than {full.name} in {full.precision} on this "
            f"device ({_speed_in_words(artifact)} against {_speed_in_words(full)}): {advice}."
        )


def _slow_prunings(report: Report) -> Iterator[str]:
    """Yield which prunings by themselves bought little speed, as removing heads does (arXiv:1905.10650)."""
    for before, stage in pairwise(report.stages):
        difference = stage.differences.get(before.name)
        if stage.role != PRUNING or difference is None or not _speed(before):
            continue
        gain = _speed(stage) / _speed(before)
        if gain < LITTLE:
            change = in_words(difference) + ("" if difference.clear else ", which may be chance")
            yield f"{stage.name} alone made a row {gain:.2f}× as fast ({change})."


def _losses(report: Report, artifacts: list[ArtifactEntry]) -> Iterator[str]:
    """Yield which artifacts answer clearly worse than the student; `shipping` tells it of the recommended one."""
    for artifact in artifacts:
        difference = artifact.differences.get("student")
        if artifact.name != report.recommended and difference and difference.clear and difference.value < 0:
            compared = sides(report, artifact, report.stages[-1])
            yield f"{artifact.name} loses: {compared} of the student ({in_words(difference)})."
