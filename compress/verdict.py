"""What a report concludes from its own figures, good or bad."""

from __future__ import annotations

import re
from typing import Any

WORSE_BY = 0.01  # an artifact that loses more than this of the student's metric is not recommended for its speed


def recommend(report: dict[str, Any]) -> str | None:
    """Return the fastest artifact whose main metric is within 0.01 of the best artifact's; None without artifacts."""
    metric = report["task"]["main_metric"]
    artifacts = [a for a in report["artifacts"] if "not_measured" not in a]
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
    full = artifacts.get("onnx")
    for name, artifact in artifacts.items():
        if artifact["precision"] != "int8" or artifact["int8_matmuls"] is None:
            continue
        if artifact["int8_matmuls"][0] == 0:
            said.append(f"{name}: no matrix product runs in int8 in ONNX Runtime's optimized graph.")
        if full and artifact["speedup"] <= full["speedup"]:
            said.append(
                f"{name} int8 is not faster than fp32 ONNX on this processor "
                f"({artifact['speedup']:.1f}× against {full['speedup']:.1f}×): ship {report['recommended']}."
            )
    return said
