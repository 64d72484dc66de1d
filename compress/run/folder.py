"""The run's folder and its report, made from the state and from what was measured."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import convert

from compress.benchmark.figures import Measurements
from compress.benchmark.row_answers import FILE, RowAnswers, packed
from compress.benchmark.stage import rejected
from compress.data.summary import Summary
from compress.families.shipped import CODE
from compress.files import storage_faults
from compress.machine import describe, versions
from compress.models.facts import described, facts_of, read_facts
from compress.models.folder import CONFIG
from compress.pipeline.cache import PRODUCT
from compress.pipeline.rewrite import PROJECTIONS
from compress.pipeline.state import State
from compress.report import report_texts
from compress.report.card import to_model_card, to_rejection
from compress.report.document import parse
from compress.report.document import plain as plain_report
from compress.report.schema import SCHEMA, AugmentationEntry, DataFacts, Report, StageCost, TaskFacts
from compress.report.verdict import conclude
from compress.run.marker import Source, write_files
from compress.run.recipe_yaml import to_yaml
from compress.settings import plain
from compress.usage import Usage

LEFT = (PRODUCT, PROJECTIONS)  # files of the cache that only the cache needs

if TYPE_CHECKING:
    from compress.run.recipe import Recipe


def report_of(
    recipe: Recipe, state: State, measured: Measurements, costs: list[StageCost], started: datetime, usage: Usage,
    command: str,
) -> Report:  # fmt: skip
    """Return the report of a run from what was measured."""
    data = replace(state.data, unlabelled=state.context.data.unlabelled)  # without what augmentations added
    rows = {
        "train": len(data.train), "validation": len(data.validation), "test": len(data.test),
        "unlabelled": len(data.unlabelled or ()),
    }  # fmt: skip
    if state.augmentations:
        rows["augmented"] = sum(augmented.counts["kept"] for augmented in state.augmentations)
    summary = data.summary or Summary()
    report = Report(
        schema=SCHEMA, recipe=recipe.recipe, name=recipe.name or "", command=command, settings=plain(recipe),
        seed=recipe.seed, started=started.isoformat(timespec="seconds"), seconds=usage.seconds,
        usage=usage, costs=costs,
        machine=describe(recipe.benchmark.threads), versions=versions(),
        task=TaskFacts(
            kind=data.task.name, labels=list(data.task.label_names), main_metric=data.task.main_metric,
            test=data.task.test,
        ),
        dataset=DataFacts(
            name=data.name, rows=rows, fingerprint=data.fingerprint, test_fingerprint=data.test.fingerprint,
            notes=[*summary.warnings(), *data.notes],
            answered=list(data.answered), summary=summary,
        ),
        augmentation=[convert(augmented.report(), AugmentationEntry) for augmented in state.augmentations],
        stages=measured.stages, artifacts=measured.artifacts, rejected=rejected(state),
        skipped=list(state.skipped), baselines=measured.baselines, depths=measured.depths,
    )  # fmt: skip
    return conclude(parse(plain_report(report)))  # as it will be read back


def repeat(folder: Path) -> str:
    """Return the command that repeats a run, for one that was not started by a command."""
    return shlex.join(["compress", "run", f"recipe={folder / 'recipe.yaml'}"])


def write_run(folder: Path, run: str, recipe: Recipe, state: State, report: Report, answers: RowAnswers) -> None:
    """Write recipe.yaml, the models, answers and the report, and the list of them as those of ``run``.

    Files that are not on the folder's list stay. Raises StorageError.
    """
    models = {f"stages/{number:02d}-{r.name}": r.model.folder for number, r in enumerate(state.records) if r.model}
    for number, record in enumerate(state.records):
        models |= {f"stages/{number:02d}-{record.name}/{place}": beside for place, beside in record.beside.items()}
    models |= {f"artifacts/{a.name}": a.folder for a in state.artifacts if a.key != state.given_student.key}
    models |= {f"stages/{a.name}": a.trained.model.folder for a in state.artifacts if a.trained is not None}
    models |= {f"rejected/{r.artifact.name}": r.artifact.folder for r in state.rejected}
    models |= {f"baselines/{a.name}": a.folder for a in state.untrained if not a.unmeasured}
    models["student"] = state.given_student.folder
    with storage_faults(folder):
        sources: dict[str, Source] = {}
        for name, model in models.items():
            files = sorted(path for path in model.rglob("*") if path.is_file())
            sources |= {f"{name}/{path.relative_to(model).as_posix()}": path for path in files if path.name not in LEFT}
            if (model / CONFIG).is_file() and read_facts(model) is None:
                sources[f"{name}/{CONFIG}"] = described(model, facts_of(model, pairs=state.data.pairs))
        sources |= {f"{rejection.path}/REJECTED.md": to_rejection(rejection) for rejection in report.rejected}
        sources["student/README.md"] = model_card(state.given_student.folder, report)
        if (kept := packed(answers)) is not None:
            sources[FILE] = kept
        write_files(folder, run, sources | {"recipe.yaml": to_yaml(recipe)} | report_texts(report))


def model_card(student: Path, report: Report) -> str:
    """Return README.md of the student's folder."""
    return to_model_card(report, CODE if (student / CODE).is_file() else None)
