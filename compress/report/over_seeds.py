"""Recipes that were run with several seeds, compared over seeds and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from compress.benchmark.row_answers import RowAnswers, read
from compress.files import hash_json
from compress.report import formats
from compress.report.differences import Labelled, chosen, labelled
from compress.report.schema import Report
from compress.tasks.base import Array, Task
from compress.tasks.paired import Difference

TITLE = "Over seeds"
HEADINGS = ["Recipe", "Against", "Difference", "95 % interval", "p", "Says", "Seeds"]
SAID = "By a bootstrap of the test rows and Student's t over the seeds: other texts and other seeds are meant."
OWN = ("seed", "name", "output", "cache")  # settings in which runs of one recipe may differ
LABELS_ONLY = "baselines/labels_only"


@dataclass(frozen=True)
class Side:
    """What several runs of one recipe answer to the test rows."""

    label: str
    answers: Mapping[int, Array]  # logits (rows, …) by seed


@dataclass(frozen=True)
class Compared:
    """Two sides, and by how much the first is better."""

    first: str
    other: str
    difference: Difference
    seeds: int  # that both have


def over_seeds(reports: Labelled) -> tuple[list[Compared], str]:
    """Return what can be compared over two or more common seeds, and else why not; nothing without several seeds.

    ``reports`` are labelled by the folders of their runs. Compared are what two recipes ship, and what a recipe ships
    with the same student trained on labels alone.
    """
    groups: dict[str, list[tuple[str, Path, Report]]] = {}
    for (label, report), (folder, _) in zip(labelled(reports), reports, strict=True):
        groups.setdefault(_recipe(report), []).append((label, Path(folder), report))
    several = [group for group in groups.values() if len({report.seed for _, _, report in group}) > 1]
    if not several:
        return [], ""
    folders = [folder for group in several for _, folder, _ in group]
    kept = {folder: answers for folder in folders if (answers := read(folder)) is not None}
    known = list(kept.values())
    if len(known) < len(folders):
        return [], "Seeds are not compared: not every run kept its answers. Run the recipes again."
    if len({answers.rows for answers in known}) > 1:
        return [], "Seeds are not compared: the runs were not tested on the same rows."
    task = _task(several[0][0][1], several[0][0][2])
    found = (_compared(task, known[0].labels, first, other) for first, other in _pairs(several, kept))
    return [compared for compared in found if compared is not None], ""


def _recipe(report: Report) -> str:
    return hash_json({name: value for name, value in report.settings.items() if name not in OWN})


def _task(folder: Path, report: Report) -> Task:
    from compress.models.loading import load_config
    from compress.tasks.registry import task_of_config

    return replace(task_of_config(load_config(folder / "student")), metric=report.main_metric)


def _pairs(
    groups: Sequence[Sequence[tuple[str, Path, Report]]], kept: Mapping[Path, RowAnswers]
) -> Iterator[tuple[Side, Side]]:
    ships: list[Side] = []
    for group in groups:
        shipped: dict[int, Array] = {}
        alone: dict[int, Array] = {}
        for _, folder, report in group:
            logits, entry = kept[folder].logits, chosen(report)
            if entry is not None and report.seed is not None and f"artifacts/{entry.name}" in logits:
                shipped[report.seed] = logits[f"artifacts/{entry.name}"]
                if LABELS_ONLY in logits:
                    alone[report.seed] = logits[LABELS_ONLY]
        ships.append(Side(f"{group[0][2].recipe or 'run'}: {group[0][0]}, …", shipped))
        yield ships[-1], Side("labels alone", alone)
    yield from combinations(ships, 2)


def _compared(task: Task, labels: Array, first: Side, other: Side) -> Compared | None:
    seeds = sorted(first.answers.keys() & other.answers.keys())
    if len(seeds) < 2:
        return None
    ours, theirs = ([side.answers[seed] for seed in seeds] for side in (first, other))
    return Compared(first.label, other.label, task.difference_over_seeds(ours, theirs, labels), len(seeds))


def rows(found: Sequence[Compared]) -> list[list[str]]:
    """Return the cells of the table under `HEADINGS`."""
    return [
        [
            pair.first, pair.other, formats.points(pair.difference.metric, pair.difference.value),
            formats.points_range(pair.difference.metric, (pair.difference.low, pair.difference.high)).strip(),
            formats.probability(pair.difference.p),
            ("better" if pair.difference.value > 0 else "worse") if pair.difference.clear else "may be chance",
            str(pair.seeds),
        ]
        for pair in found
    ]  # fmt: skip
