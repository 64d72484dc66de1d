"""Is one way to train better than another, over seeds?

    python benchmarks/seeds.py 86.35,86.93,86.47 82.68,83.14,83.49

Prints how much the first way's figures, by seed, lie above the second's, with a 95 % interval and p by Student's t over
the seeds' differences: what recorded figures allow where the answers to single rows were not kept. That speaks of other
seeds on the rows that were measured, not of other rows; with three seeds it has 2 degrees of freedom.

The benchmarks that train keep each model's answers beside their results, and compare by `over_seeds`: over seeds and
rows (`compress.tasks.paired.of_seeds`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.tasks.base import Array, Task
from compress.tasks.paired import Difference

Runs = Sequence[Mapping[str, Any]]


def main() -> None:
    """Compare recorded figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("first", "second"):
        parser.add_argument(name, type=_figures, help="figures by seed, separated by commas, both in the same order")
    given = parser.parse_args()
    if len(given.first) != len(given.second) or len(given.first) < 2:
        parser.error("both must have the same number of figures, two or more")
    found = of_figures(given.first, given.second)
    print(f"{shown(found, 1)}, p = {found.p:.3f}")


def _figures(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def of_figures(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Compare two ways by a figure for each seed, in the same order, by Student's t."""
    from scipy.stats import ttest_rel

    found = ttest_rel(values, others)
    low, high = found.confidence_interval()
    value = float(np.mean(np.subtract(values, others)))
    return Difference(metric="", value=value, low=float(low), high=float(high), p=float(found.pvalue))


def keep(results: Path, about: Mapping[str, Any], logits: Array, labels: Array) -> str:
    """Store what a model answers to the test rows beside ``results``; return the file's name."""
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16] + ".npz"
    folder = _answers(results)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / name, logits=logits.astype(np.float32), labels=labels)
    return name


def _answers(results: Path) -> Path:
    return results.with_name(f"{results.stem}-answers")


def answers(results: Path, run: Mapping[str, Any]) -> Array:
    """Return the logits that a run kept beside ``results``."""
    logits: Array = np.load(_answers(results) / run["answers"], allow_pickle=False)["logits"]
    return logits


def over_seeds(task: Task, results: Path, runs: Runs, others: Runs) -> Difference | None:
    """Compare runs with the runs of another way by the answers that were kept; None where some are missing.

    Runs are paired by ``seed``; there must be two pairs.
    """
    pairs = _paired(runs, others)
    files = [_answers(results) / run.get("answers", "none") for pair in pairs for run in pair]
    if len(pairs) < 2 or not all(path.is_file() for path in files):
        return None
    kept = [np.load(path, allow_pickle=False) for path in files]
    labels = kept[0]["labels"]
    if not all(np.array_equal(run["labels"], labels) for run in kept):
        raise SystemExit(f"{_answers(results)}: not all answers are to the same test rows. Remove those of other rows.")
    ours, theirs = ([run["logits"] for run in side] for side in (kept[::2], kept[1::2]))
    return task.difference_over_seeds(ours, theirs, labels)


def against(task: Task, results: Path, runs: Runs, others: Runs) -> str:
    """Return the difference of accuracies in points with its interval; marked where it is of seeds alone."""
    found = over_seeds(task, results, runs, others)
    if found is not None:
        return shown(found)
    pairs = _paired(runs, others)
    if not pairs:
        return "–"
    values, theirs = ([run["accuracy"] for run in side] for side in zip(*pairs, strict=True))
    if len(pairs) < 2:
        return f"{100 * (values[0] - theirs[0]):+.2f}"
    return f"{shown(of_figures(values, theirs))} (seeds)"


def _paired(runs: Runs, others: Runs) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    theirs = {run["seed"]: run for run in others}
    return [(run, theirs[run["seed"]]) for run in sorted(runs, key=lambda run: run["seed"]) if run["seed"] in theirs]


def shown(found: Difference, points: float = 100) -> str:
    """Return a difference and its interval: "+0.65 [-2.6, +3.9]"."""
    return f"{points * found.value:+.2f} [{points * found.low:+.1f}, {points * found.high:+.1f}]"


if __name__ == "__main__":
    main()
