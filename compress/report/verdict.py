"""What a report concludes from its own figures, good or bad."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from msgspec import structs

from compress.benchmark.figures import Artifact, Baseline, Entry
from compress.report import formats, gates
from compress.report.schema import Report
from compress.tasks.paired import Difference

TEACHER = "teacher"
STUDENT, DISTILLATION, PRUNING = "student", "distillation", "pruning"  # roles of stages
FLOATS = ("fp32", "fp16")
LITTLE = 1.15  # a pruning that gives less speed is pointed out
WORSE_BY = 0.01  # an artifact that is further than this below the best is not recommended for its speed


def conclude(report: Report) -> Report:
    """Return the report with its recommendation, warnings and verdicts."""
    report = structs.replace(report, recommended=recommend(report), warnings=warnings(report))
    return structs.replace(report, verdicts=verdicts(report))


def recommend(report: Report) -> str | None:
    """Return the fastest artifact whose main metric is within 0.01 of the best artifact's; None without artifacts.

    Artifacts for another device are left out: what they are worth there was not measured.
    """
    metric = report.main_metric
    artifacts = [artifact for artifact in report.artifacts if artifact.measured and not artifact.target]
    if not artifacts:
        return None
    best = max(artifact.metrics[metric] for artifact in artifacts)
    good = [artifact for artifact in artifacts if artifact.metrics[metric] >= best - WORSE_BY]
    return max(good, key=_speed).name


def warnings(report: Report) -> list[str]:
    """Return which artifacts were rejected and why the teacher is not worth learning from; read before all else."""
    return [*gates.warnings(report), *_of_the_teacher(report)]


def verdicts(report: Report) -> list[str]:
    """Return plain sentences, each from figures of this report; its `warnings` are the first.

    Whether one model is better than another is decided by paired tests on the same rows (`compress.tasks.paired`).
    """
    measured = [artifact for artifact in report.artifacts if artifact.measured]
    return [
        *warnings(report),
        *_of_the_cheap_model(report),
        *_of_own_int8(report),
        *_of_distillation(report),
        *_slow_prunings(report),
        *_losses(report, measured),
        *_of_low_precision(report, measured),
        *gates.findings(report),
    ]


def _of_the_teacher(report: Report) -> Iterator[str]:
    """Yield why the teacher is not worth learning from: a student is clearly better, or TF-IDF is not clearly worse."""
    teacher = report.teacher
    if teacher is None:
        return
    remedy = "train it longer (teacher.epochs, teacher.learning_rate) or name a better one (teacher.model)."
    for stage in report.stages:
        difference = stage.differences.get(TEACHER)
        if difference and difference.clear and difference.value > 0:
            sides = _sides(report, stage, teacher)
            yield (
                f"{stage.name} is better than its teacher: {sides} ({_in_words(difference)}). "
                f"Its teacher is undertrained: {remedy}"
            )
            break
    tfidf = _baseline(report, "tfidf")
    difference = tfidf.differences.get(TEACHER) if tfidf else None
    if tfidf and difference and not (difference.clear and difference.value < 0):
        how = "worse" if difference.clear else "not clearly better"
        sides = _sides(report, teacher, tfidf)
        yield (
            f"The teacher is {how} than {tfidf.kind}: {sides} ({_in_words(_reversed(difference))}). "
            f"It has little to teach: {remedy}"
        )


def _of_the_cheap_model(report: Report) -> Iterator[str]:
    """Yield that the recommended artifact is not clearly better than TF-IDF."""
    best, tfidf = report.best, _baseline(report, "tfidf")
    difference = tfidf.differences.get(best.name) if best and tfidf else None
    if not (best and tfidf and difference) or (difference.clear and difference.value < 0):
        return
    if difference.clear:
        sides = _sides(report, tfidf, best)
        yield f"{tfidf.kind} is better: {sides} ({_in_words(difference)}). Do not ship {best.name}."
    else:
        sides = _sides(report, best, tfidf)
        yield (
            f"{best.name} is not clearly better than {tfidf.kind}: {sides} ({_in_words(_reversed(difference))}). "
            "On these rows the cheap model may be enough."
        )


def _of_own_int8(report: Report) -> Iterator[str]:
    """Yield how the recommended artifact compares with the teacher's own int8, which took no training."""
    best, own = report.best, report.own_int8
    difference = own.differences.get(best.name) if best and own else None
    if not (best and own and difference) or best.over_int8 is None:
        return
    better = difference.clear and difference.value < 0
    change = _in_words(_reversed(difference)) + ("" if difference.clear else ", which may be chance")
    speed = f"{best.over_int8:.2f}× as fast as the teacher's own int8"
    if best.over_int8 <= 1 and not better:
        yield (
            f"Do not ship {best.name}: it is {speed}, which took no training, and not more accurate ({change}). "
            f"Ship {own.path or own.name}, or distil a smaller student."
        )
    else:
        yield f"{best.name} is {speed}, which took no training: {change}."


def _of_distillation(report: Report) -> Iterator[str]:
    """Yield what distillation did for the student that labels alone did not."""
    distilled = next((stage for stage in reversed(report.stages) if stage.role == DISTILLATION), None)
    difference = distilled.differences.get("labels_only") if distilled else None
    if not (distilled and difference):
        return
    effect = "made no clear difference in this run"
    if difference.clear:
        effect = "helped" if difference.value > 0 else "harmed"
    yield (
        f"Distillation {effect}: {_in_words(difference)}, against the same student trained on labels alone "
        f"({report.test_rows or 0:,} rows, one seed)."
    )
    before = report.stages[1 : report.stages.index(distilled)]
    if prepared := [stage.name for stage in before if stage.role != STUDENT]:
        without = ", ".join(prepared)
        yield f"The student trained on labels alone went without {without}, and so was trained for fewer steps."


def _baseline(report: Report, name: str) -> Baseline | None:
    return next((baseline for baseline in report.baselines if baseline.name == name), None)


def _reversed(difference: Difference) -> Difference:
    """Return the same difference, seen from the other side."""
    return replace(difference, value=-difference.value, low=-difference.high, high=-difference.low)


def _in_words(difference: Difference) -> str:
    """Return a difference in words: "accuracy +1.2 points, 95 % interval +0.3 to +2.1"."""
    metric = difference.metric
    unit, name = " points" if formats.is_share(metric) else "", formats.metric_name(metric)
    value, low, high = (
        formats.points(metric, number) for number in (difference.value, difference.low, difference.high)
    )
    return f"{name} {value}{unit}, 95 % interval {low} to {high}"


def _sides(report: Report, better: Entry, other: Entry) -> str:
    """Return the main metric of two entries: "71.7 % against 31.1 %"."""
    return " against ".join(formats.with_unit(report.main_metric, report.metric(side)) for side in (better, other))


def _speed(entry: Entry) -> float:
    """Return how fast a model is: its speedup, or rows per millisecond where no teacher was timed."""
    if entry.speedup is not None:
        return entry.speedup
    timing = entry.headline()
    return 1 / timing.median_ms if timing and timing.median_ms else 0.0


def _speed_in_words(entry: Entry) -> str:
    return f"{entry.speedup:.2f}×" if entry.speedup is not None else f"{1 / _speed(entry):.3g} ms"


def _of_low_precision(report: Report, artifacts: list[Artifact]) -> Iterator[str]:
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
        if report.recommended == artifact.name:
            below = f"{full.name} is more than {WORSE_BY} below the best {formats.metric_name(report.main_metric)}"
            advice = f"recommended all the same, as {below}"
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
            change = _in_words(difference) + ("" if difference.clear else ", which may be chance")
            yield f"{stage.name} alone made a row {gain:.2f}× as fast ({change})."


def _losses(report: Report, artifacts: list[Artifact]) -> Iterator[str]:
    """Yield which artifacts answer clearly worse than the student that they were made of."""
    for artifact in artifacts:
        difference = artifact.differences.get("student")
        if difference and difference.clear and difference.value < 0:
            sides = _sides(report, artifact, report.stages[-1])
            yield f"{artifact.name} loses: {sides} of the student ({_in_words(difference)})."
