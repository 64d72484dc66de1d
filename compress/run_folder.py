"""The run's folder and its report, made from the state and from what was measured."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.data.dataset import Dataset
from compress.distill.projections import PROJECTIONS
from compress.files import hash_json, locked, place, storage_faults, sweep_up, write_text
from compress.machine import describe, versions
from compress.models.shipped import CODE
from compress.report import write_report
from compress.report.card import to_model_card
from compress.settings import plain
from compress.state import PRODUCT, State
from compress.verdict import recommend, verdicts, warnings

if TYPE_CHECKING:
    from compress.recipe import Recipe


def report_of(
    recipe: Recipe, state: State, measured: dict[str, Any], started: datetime, seconds: float, command: str | None
) -> dict[str, Any]:
    """Return the content of report.json, schema 1."""
    data, added = _given(state)
    report = {
        "schema": 1,
        "recipe": recipe.recipe,
        "name": recipe.name,
        "command": command or f"compress run recipe={recipe.folder}/recipe.yaml",
        "settings": plain(recipe),
        "seed": recipe.seed,
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
        "machine": describe(recipe.benchmark.threads),
        "versions": versions(),
        "task": {
            "kind": data.task.kind.value,
            "labels": list(getattr(data.task, "labels", [])),
            "main_metric": data.task.main_metric,
        },
        "dataset": {
            "name": data.name,
            "rows": {
                "train": len(data.train),
                "validation": len(data.validation),
                "test": len(data.test),
                "unlabelled": len(data.unlabelled or ()),
                **({"augmented": added} if state.augmentations else {}),
            },
            "fingerprint": data.fingerprint,
            "notes": list(data.notes),
        },
        **({"augmentation": [dict(one) for one in state.augmentations]} if state.augmentations else {}),
        **measured,
    }
    report["recommended"] = recommend(report)
    report["warnings"] = warnings(report)
    report["verdicts"] = verdicts(report)
    return report


def _given(state: State) -> tuple[Dataset, int]:
    """Return the data set without what augmentations added to its unlabelled rows, and how many those are."""
    added = sum(one["counts"]["kept"] for one in state.augmentations)
    unlabelled = state.data.unlabelled
    if unlabelled is None or not state.augmentations:
        return state.data, 0
    given = unlabelled.take(np.arange(len(unlabelled) - added))
    return replace(state.data, unlabelled=given if len(given) else None), added


def write_run(folder: Path, recipe: Recipe, state: State, report: dict[str, Any]) -> None:
    """Write recipe.yaml, stages/, student/, artifacts/ and the report; each appears whole or not at all."""
    from compress.config import to_yaml  # which knows the names of what a recipe holds, and so imports recipes

    lock = state.workshop.cache / "locks" / f"run-{hash_json(str(folder.absolute()))[:24]}"
    models = {f"stages/{number:02d}-{r.name}": r.model.folder for number, r in enumerate(state.records)}
    models |= {f"artifacts/{a.name}": a.folder for a in state.artifacts if a.key != state.given_student.key}
    models |= {f"stages/{a.name}": a.trained.folder for a in state.artifacts if a.trained is not None}
    models["student"] = state.given_student.folder
    with storage_faults(folder), locked(lock):
        for name in (*models, "recipe.yaml", "report.json", "report.md", "report.html"):
            sweep_up(folder / name)
        write_text(folder / "recipe.yaml", to_yaml(recipe))
        for name, source in models.items():
            place(source, folder / name, PRODUCT, PROJECTIONS)
        for path in (*folder.glob("stages/*"), *folder.glob("artifacts/*")):
            if str(path.relative_to(folder)) not in models:
                shutil.rmtree(path)  # of an earlier recipe with the same folder
        code = CODE if (folder / "student" / CODE).is_file() else None
        write_text(folder / "student" / "README.md", to_model_card(report, code))
        write_report(report, folder)
