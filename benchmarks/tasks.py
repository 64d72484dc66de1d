"""A task's recipe on its own files: teacher, distilled student, the same student by labels alone, int8 and speed.

    python benchmarks/tasks.py tags --files snips_slots/train.tsv snips_slots/dev.tsv snips_slots/test.tsv 2000

Each set is run with every seed, which also draws the training rows. Finished work is kept in ``--cache``: run the same
command after an interruption, and it resumes. Prints a Markdown table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from compress.benchmark.figures import Entry
from compress.cli.compose import compose
from compress.machine import describe, versions
from compress.report.schema import Report

HEAD = ("set", "rows", "model", "by seed", "mean", "kept %", "MiB", "ms", "speedup")


def main() -> None:
    """Run, collect, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="its name, as tags")
    parser.add_argument(
        "--files", nargs=4, action="append", required=True, metavar=("TRAIN", "VALIDATION", "TEST", "ROWS")
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", default="runs/tasks", help="folder of the runs")
    parser.add_argument("--cache", default="runs/.cache")
    parser.add_argument("--words", nargs="+", default=[], metavar="WORD", help="more words of `compress run`")
    given = parser.parse_args()

    sets = []
    for train, validation, test, rows in given.files:
        name = Path(train).resolve().parent.name
        reports = []
        for seed in given.seeds:
            words = [
                f"recipe={given.recipe}", "data=files", f"data.train={train}", f"data.validation={validation}",
                f"data.test={test}", f"data.train_rows={rows}", f"seed={seed}", f"cache={given.cache}",
                f"output={given.output}/{name}-{rows}-{seed}", *given.words,
            ]  # fmt: skip
            reports.append(compose(words).run().report)
        sets.append({"set": name, "rows": int(rows), "models": collected(reports)})
        print(table(sets[-1:]), flush=True)
    print(table(sets))
    found = {"sets": sets, "recipe": given.recipe, "words": given.words, "seeds": given.seeds}
    print(json.dumps(found | {"machine": describe(1), "versions": versions()}))


def collected(reports: list[Report]) -> list[dict[str, Any]]:
    """Return the figures of each model of a run, a value per seed, in the report's order."""
    models = []
    for place, entry in enumerate(reports[0].entries):
        entries: list[Entry] = [report.entries[place] for report in reports]
        models.append({
            "model": f"{entry.name} ({entry.kind})" if entry.group == "baseline" else entry.name,
            "group": entry.group,
            "metrics": [dict(entry.metrics) for entry in entries],
            "metric": [report.metric(entry) for report, entry in zip(reports, entries, strict=True)],
            "retained": [entry.retained for entry in entries],
            "size_mib": entry.size_mib,
            "ms": [report.milliseconds(entry) for report, entry in zip(reports, entries, strict=True)],
            "speedup": [entry.speedup for entry in entries],
        })  # fmt: skip
    return models


def table(sets: list[dict[str, Any]]) -> str:
    """Return the Markdown table."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for data_set in sets:
        for model in data_set["models"]:
            values = [100 * value for value in model["metric"]]
            row = (
                data_set["set"], f"{data_set['rows']:,}", model["model"], ", ".join(f"{value:.1f}" for value in values),
                f"{np.mean(values):.1f}", mean(model["retained"], 100), number(model["size_mib"]), mean(model["ms"]),
                mean(model["speedup"]),
            )  # fmt: skip
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def mean(values: list[float | None], times: float = 1.0) -> str:
    """Return the mean of what was measured."""
    known = [times * value for value in values if value is not None]
    return number(float(np.mean(known)) if known else None)


def number(value: float | None) -> str:
    """Return three digits, or nothing."""
    return "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
