"""What a report concludes from its own figures, good or bad."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

FLOATS = ("fp32", "fp16")
LITTLE = 1.15  # a pruning that gives less speed is pointed out
WORSE_BY = 0.01  # an artifact that loses more than this of the student's metric is not recommended for its speed


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


def verdicts(report: dict[str, Any]) -> list[str]:
    """Return plain sentences about baselines, distillation and int8, each from figures of this report."""
    metric, rows = report["task"]["main_metric"], report["dataset"]["rows"]["test"]
    artifacts = {a["name"]: a for a in report["artifacts"] if "not_measured" not in a}
    baselines = {b["name"]: b for b in report["baselines"]}
    said = []
    chosen = artifacts.get(report["recommended"] or "")
    tfidf = baselines.get("tfidf")
    if chosen and tfidf:
        ours, theirs = chosen["metrics"][metric], tfidf["metrics"][metric]
        if theirs >= ours:
            said.append(
                f"{tfidf['kind']} reaches {metric} {theirs:.3f}, no less than the recommended artifact's {ours:.3f}: "
                "on these rows the cheap model is enough."
            )
    generations = (s for s in reversed(report["stages"]) if re.fullmatch(r"distill(-\d+)?", s["name"]))
    distilled = next(generations, None)
    twin = baselines.get("labels_only")
    if distilled and twin:
        gain = distilled["metrics"][metric] - twin["metrics"][metric]
        low, high = twin["interval"][metric]
        clear = not low <= distilled["metrics"][metric] <= high
        said.append(
            f"Against the same student trained on labels alone, distillation changed {metric} by {gain:+.3f} "
            f"({rows:,} rows, one seed); that is {'outside' if clear else 'inside'} the twin's 95 % interval"
            + ("." if clear else ", so this run alone does not show a difference.")
        )
        before = report["stages"][1 : report["stages"].index(distilled)]
        if prepared := [stage["name"] for stage in before if stage["kind"] != "Saved"]:
            said.append(f"That twin went without {', '.join(prepared)}, and so was trained for fewer steps.")
    measured = list(artifacts.values())
    return [*said, *_slow_prunings(report), *_losses(report, measured), *_of_low_precision(report, measured)]


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
    metric = report["task"]["main_metric"]
    for before, stage in pairwise(report["stages"]):
        gain = stage["speedup"] / before["speedup"] if stage["kind"].startswith("Prune") else LITTLE
        if gain < LITTLE:
            change = stage["metrics"][metric] - before["metrics"][metric]
            yield f"{stage['name']} alone made a row {gain:.2f}× as fast, and changed {metric} by {change:+.3f}."


def _losses(report: dict[str, Any], artifacts: list[dict[str, Any]]) -> Iterator[str]:
    """Yield which artifacts answer clearly worse than the student that they were made of."""
    metric = report["task"]["main_metric"]
    student = report["stages"][-1]["metrics"][metric]
    for artifact in artifacts:
        value = artifact["metrics"][metric]
        if value < student - WORSE_BY:
            yield f"{artifact['name']} loses {student - value:.3f} of the student's {metric} ({student:.3f})."
