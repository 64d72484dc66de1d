"""What share of a teacher can be kept at what speed, when `compress search` looks for it?

    python benchmarks/frontier.py --train sst2/train.tsv --test sst2/dev.tsv --teacher minilm-sst2 --minutes 60

For each share of the teacher's metric that is to be kept (``--keep``) it runs one search, which chooses on validation
rows, then the recipe that the search has written once for each seed. The table has the mean over seeds on test rows,
the share that this is, the speed of the searched artifact over the teacher in eager PyTorch and over the teacher's own
dynamic int8, measured alternately (median over seeds, one row at its real length), and the difference to the teacher's
own int8 in points, with a 95 % interval over seeds and rows. Searches and runs are in ``--results``: the same command
resumes after an interruption, and more seeds or shares add to what is there. Other words are those of `compress
search`, for example ``search.students=[bert,static] data.train_rows=4000``. Prints a Markdown table and, last, one line
of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import seeds

from compress.benchmark.figures import TEACHER_INT8
from compress.benchmark.row_answers import read
from compress.cli.compose import compose
from compress.cli.search import searching
from compress.errors import CompressError
from compress.machine import describe, versions
from compress.models.loading import load_config
from compress.run.result import Run, load
from compress.search.result import SearchReport
from compress.search.search import search
from compress.tasks.base import Task
from compress.tasks.paired import Difference
from compress.tasks.registry import task_of_config
from compress.telling import say


def main() -> None:
    """Search and train what is not done yet, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="label<TAB>text rows; a tenth of them are for validation")
    parser.add_argument("--test", required=True, help="rows that are measured")
    parser.add_argument("--teacher", required=True, help="a model; without a head for these labels it is trained first")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.99, 0.97, 0.95])
    parser.add_argument("--minutes", type=float, help="of each search; default: no limit")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the runs that are measured")
    parser.add_argument("--results", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--cache", default="runs/.cache")
    given, words = parser.parse_known_args()

    rows = []
    for share in given.keep:
        try:
            rows.append(measured(share, given, words))
        except CompressError as error:
            say(f"{share:.0%}: {error}")
    found = [row for row in rows if row]
    print(table(found))
    files = {name: Path(getattr(given, name)).name for name in ("train", "test", "teacher")}
    print(json.dumps({**files, "words": words, "machine": describe(1), "versions": versions(), "rows": found}))


def measured(share: float, given: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Return the row of one share; empty where the search has found no student."""
    folder = given.results / f"keep-{share:g}"
    common = [
        "data=files", f"data.train={given.train}", f"data.test={given.test}", f"teacher.model={given.teacher}",
        f"cache={given.cache}", "search.anyway=true",
    ]  # fmt: skip
    limit = [] if given.minutes is None else [f"search.minutes={given.minutes}"]
    recipe, target, settings = searching(
        [*common, *limit, f"target.keep={share}", f"output={folder / 'search'}", *words]
    )
    found = search(recipe, target, settings, "benchmarks/frontier.py")
    if found.run is None or found.report.winner is None:
        say(f"{share:.0%}: {found.report.verdict}")
        return {}
    runs = list(repeated(found.folder / "run", folder, given.seeds))
    return row_of(share, found.report, runs)


def repeated(run: Path, folder: Path, numbers: Sequence[int]) -> Iterator[Run]:
    """Yield the run of the searched recipe for each seed, done now or found finished."""
    for seed in numbers:
        output = folder / f"seed-{seed}"
        if (output / "report.json").is_file():
            yield load(output)
            continue
        recipe = compose([f"recipe={run / 'recipe.yaml'}", f"seed={seed}", "benchmark.labels_only=false"])
        # rows are cut by the seed, and a teacher without a head is trained with it: each seed repeats everything
        yield replace(recipe, name=None, output=str(output)).run()


def row_of(share: float, report: SearchReport, runs: Sequence[Run]) -> dict[str, Any]:
    """Return the figures of the artifact that the search has found, over the runs of all seeds."""
    winner = report.winner
    assert winner is not None
    metric, first = report.metric, runs[0].report
    made = [next(entry for entry in run.report.artifacts if entry.name == winner.artifact) for run in runs]
    teachers = [run.report.stages[0].metrics[metric] for run in runs]
    students = [entry.metrics[metric] for entry in made]
    return {
        "asked": share, "student": winner.student, "artifact": winner.artifact, "metric": metric,
        "seeds": [run.report.seed for run in runs], "metrics": students, "teachers": teachers,
        "keeps": mean(students) / mean(teachers), "eager": middle([entry.speedup for entry in made]),
        "int8": middle([entry.over_int8 for entry in made]), "rows": dict(first.dataset.rows),
        "search_minutes": report.seconds / 60, "trials": len(report.trials),
        "over_int8": told(against_int8(runs, f"artifacts/{winner.artifact}")),
    }  # fmt: skip


def against_int8(runs: Sequence[Run], artifact: str) -> Difference | None:
    """Return the difference of an artifact's metric to that of the teacher's own int8, over seeds and rows."""
    kept = [read(run.folder) for run in runs]
    names = artifact, f"baselines/{TEACHER_INT8}"
    ours, theirs = ([answers.logits[name] for answers in kept if answers and name in answers.logits] for name in names)
    if len(ours) < 2 or len(ours) != len(theirs) or len(ours) < len(runs) or kept[0] is None:
        return None
    return task_of(runs[0]).difference_over_seeds(ours, theirs, kept[0].labels)


def task_of(run: Run) -> Task:
    """Return the task of a run, as its student's configuration has it."""
    return task_of_config(load_config(run.folder / "student"))


def middle(values: Sequence[float | None]) -> float | None:
    """Return the median of what was measured; None where something was not."""
    there = [value for value in values if value is not None]
    return median(there) if len(there) == len(values) else None


def told(found: Difference | None) -> str:
    """Return a difference in points with its interval."""
    return "–" if found is None else seeds.shown(found)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown table."""
    lines = [
        "| asked to keep | student | artifact | mean over seeds | kept | × eager | × its own int8 | less the teacher's "
        "int8, points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        speeds = ("–" if row[name] is None else f"{row[name]:.3g}" for name in ("eager", "int8"))
        figures = f"{100 * mean(row['metrics']):.2f} | {row['keeps']:.1%}"
        lines.append(
            f"| {row['asked']:.0%} | {row['student']} | {row['artifact']} | {figures} | {' | '.join(speeds)} | "
            f"{row['over_int8']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
