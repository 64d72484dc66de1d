"""What a report concludes from its own figures, good or bad."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from compress.report import formats
from compress.tasks.paired import Difference

TEACHER = "teacher"
STUDENT, DISTILLATION, PRUNING = "student", "distillation", "pruning"  # roles of stages
FLOATS = ("fp32", "fp16")
LITTLE = 1.15  # a pruning that gives less speed is pointed out
WORSE_BY = 0.01  # an artifact that is further than this below the best is not recommended for its speed


def recommend(report: dict[str, Any]) -> str | None:
    """Return the fastest artifact whose main metric is within 0.01 of the best artifact's; None without artifacts.

    Those that are made for another device are left out: what they are worth there was not measured.
    """
    metric = report["task"]["main_metric"]
    artifacts = [a for a in report["artifacts"] if "not_measured" not in a and "target" not in a]
    if not artifacts:
        return None
    best = max(a["metrics"][metric] for a in artifacts)
    good = [a for a in artifacts if a["metrics"][metric] >= best - WORSE_BY]
    return str(max(good, key=lambda a: a["speedup"])["name"])


def warnings(report: dict[str, Any]) -> list[str]:
    """Return why the teacher is not worth learning from, as far as this report shows; it is read before all else."""
    return list(_of_the_teacher(report))


def verdicts(report: dict[str, Any]) -> list[str]:
    """Return plain sentences, each from figures of this report; its `warnings` are the first.

    Whether one model is better than another is said by paired tests on the same rows (`compress.tasks.paired`).
    """
    measured = [a for a in report["artifacts"] if "not_measured" not in a]
    return [
        *warnings(report),
        *_of_the_cheap_model(report),
        *_of_distillation(report),
        *_slow_prunings(report),
        *_losses(report, measured),
        *_of_low_precision(report, measured),
    ]


def _of_the_teacher(report: dict[str, Any]) -> Iterator[str]:
    """Yield why the teacher is not worth learning from: a student is clearly better, or TF-IDF is not clearly worse."""
    teacher = next((stage for stage in report["stages"] if stage["name"] == TEACHER), None)
    if teacher is None:
        return
    remedy = "train it longer (teacher.epochs, teacher.learning_rate) or name a better one (teacher.model)."
    for stage in report["stages"]:
        found = _difference(stage, TEACHER)
        if found and found.clear and found.value > 0:
            sides = _sides(report, stage, teacher)
            yield (
                f"{stage['name']} is better than its teacher: {sides} ({_told(found)}). "
                f"Its teacher is undertrained: {remedy}"
            )
            break
    tfidf = _baseline(report, "tfidf")
    found = _difference(tfidf, TEACHER) if tfidf else None
    if tfidf and found and not (found.clear and found.value < 0):
        how = "worse" if found.clear else "not clearly better"
        sides = _sides(report, teacher, tfidf)
        yield (
            f"The teacher is {how} than {tfidf['kind']}: {sides} ({_told(_reversed(found))}). "
            f"It has little to teach: {remedy}"
        )


def _of_the_cheap_model(report: dict[str, Any]) -> Iterator[str]:
    """Yield that the recommended artifact is not clearly better than TF-IDF."""
    chosen = next((a for a in report["artifacts"] if a["name"] == report["recommended"]), None)
    tfidf = _baseline(report, "tfidf")
    found = _difference(tfidf, chosen["name"]) if chosen and tfidf else None
    if not (chosen and tfidf and found) or (found.clear and found.value < 0):
        return
    if found.clear:
        sides = _sides(report, tfidf, chosen)
        yield f"{tfidf['kind']} is better: {sides} ({_told(found)}). Do not ship {chosen['name']}."
    else:
        sides = _sides(report, chosen, tfidf)
        yield (
            f"{chosen['name']} is not clearly better than {tfidf['kind']}: {sides} ({_told(_reversed(found))}). "
            "On these rows the cheap model may be enough."
        )


def _of_distillation(report: dict[str, Any]) -> Iterator[str]:
    """Yield what distillation did for the student that labels alone did not."""
    generations = (stage for stage in reversed(report["stages"]) if stage["role"] == DISTILLATION)
    distilled = next(generations, None)
    found = _difference(distilled, "labels_only") if distilled else None
    if not (distilled and found):
        return
    effect = ("helped" if found.value > 0 else "harmed") if found.clear else "made no difference that this run can show"
    rows = report["dataset"]["rows"]["test"]
    yield (
        f"Distillation {effect}: {_told(found)}, against the same student trained on labels alone "
        f"({rows:,} rows, one seed)."
    )
    before = report["stages"][1 : report["stages"].index(distilled)]
    if prepared := [stage["name"] for stage in before if stage["role"] != STUDENT]:
        yield f"That twin went without {', '.join(prepared)}, and so was trained for fewer steps."


def _baseline(report: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((baseline for baseline in report["baselines"] if baseline["name"] == name), None)


def _difference(entry: dict[str, Any], against: str) -> Difference | None:
    """Return how an entry of the report differs from another; None where they were not compared."""
    found = entry.get("differences", {}).get(against)
    return Difference(**found) if found else None


def _reversed(found: Difference) -> Difference:
    """Return the same difference, seen from the other side."""
    return replace(found, value=-found.value, low=-found.high, high=-found.low)


def _told(found: Difference) -> str:
    """Return a difference in words: "accuracy +1.2 points, 95 % interval +0.3 to +2.1"."""
    unit = " points" if formats.is_share(found.metric) else ""
    value, low, high = (formats.points(found.metric, number) for number in (found.value, found.low, found.high))
    return f"{found.metric} {value}{unit}, 95 % interval {low} to {high}"


def _sides(report: dict[str, Any], better: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the main metric of two entries: "71.7 % against 31.1 %"."""
    metric = report["task"]["main_metric"]
    return " against ".join(formats.with_unit(metric, side["metrics"][metric]) for side in (better, other))


def _of_low_precision(report: dict[str, Any], artifacts: list[dict[str, Any]]) -> Iterator[str]:
    """Yield whether integers run at all, and which are no faster than the fastest artifact in floats."""
    metric, chosen = report["task"]["main_metric"], report["recommended"]
    full = max((a for a in artifacts if a["precision"] in FLOATS), key=lambda a: a["speedup"], default=None)
    for artifact in artifacts:
        if artifact["precision"] in FLOATS or "target" in artifact:
            continue
        name, counted = artifact["name"], artifact["int8_matmuls"]
        if counted is not None and counted[0] == 0:
            yield f"{name}: no matrix product runs in int8 in ONNX Runtime's optimized graph."
        if full is None or artifact["speedup"] > full["speedup"]:
            continue
        speeds = f"{artifact['speedup']:.2f}× against {full['speedup']:.2f}×"
        advice = f"ship {chosen}"
        if chosen == name:
            advice = f"recommended all the same, as {full['name']} is more than {WORSE_BY} below the best {metric}"
        yield (
            f"{name} in {artifact['precision']} is not faster than {full['name']} in {full['precision']} "
            f"on this device ({speeds}): {advice}."
        )


def _slow_prunings(report: dict[str, Any]) -> Iterator[str]:
    """Yield which prunings by themselves bought little speed, as removing heads does (arXiv:1905.10650)."""
    for before, stage in pairwise(report["stages"]):
        gain = stage["speedup"] / before["speedup"] if stage["role"] == PRUNING else LITTLE
        found = _difference(stage, before["name"])
        if gain < LITTLE and found:
            change = _told(found) + ("" if found.clear else ", which may be chance")
            yield f"{stage['name']} alone made a row {gain:.2f}× as fast ({change})."


def _losses(report: dict[str, Any], artifacts: list[dict[str, Any]]) -> Iterator[str]:
    """Yield which artifacts answer clearly worse than the student that they were made of."""
    student = report["stages"][-1]
    for artifact in artifacts:
        found = _difference(artifact, "student")
        if found and found.clear and found.value < 0:
            yield f"{artifact['name']} loses: {_sides(report, artifact, student)} of the student ({_told(found)})."
