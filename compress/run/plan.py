"""What a recipe would do: the stages in their order, each adding to a plan what it would train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from compress.benchmark.depths import Depths
from compress.data.dataset import Dataset
from compress.distill.stage import labels_only
from compress.pipeline.plan import Plan
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.check import Checked
from compress.run.recipe import Recipe
from compress.student.saved import Saved
from compress.teachers.standing_in import FIELDS


def plan_of(recipe: Recipe, checked: Checked) -> Plan:
    """Return what a recipe that was checked would train, stage by stage. Nothing is written.

    Finished work in the cache is not looked for.
    """
    inspection = recipe.teacher.inspect(checked.data)
    data, weights = _with_any_labels(inspection.data), inspection.weights
    tokenizer = _stand_in_tokenizer(recipe, data) if weights is None else weights.tokenizer
    plan = Plan(
        data=data, seed=recipe.seed, tokenizer=tokenizer, teacher_tokenizer=tokenizer,
        max_tokens=tokenizer.model_max_length if weights is None else weights.max_tokens,
        teacher=None if weights is None else weights.config,
    )  # fmt: skip
    for name, stage in recipe.stages():
        assert isinstance(stage, Stage)
        plan = stage.plan(replace(plan, stage=name))
    return _twins(recipe, plan)


def _with_any_labels(data: Dataset) -> Dataset:
    """Return the data with labels where the teacher's answers will stand; which ones costs no step and no time."""
    rows = {FIELDS[name]: getattr(data, FIELDS[name]) for name in data.answered}
    task = data.task
    return replace(
        data,
        **{
            name: replace(split, labels=task.predictions(np.zeros((len(split), task.outputs), dtype=np.float32)))
            for name, split in rows.items()
        },
    )


def _stand_in_tokenizer(recipe: Recipe, data: Dataset) -> Any:
    """Return the tokenizer of what a student is built from where the teacher only answers."""
    if isinstance(recipe.student, Saved):
        return recipe.student.tokenizer(None, data.train)
    state = State.begin(data=data, workshop=Workshop(recipe.cache_folder), seed=recipe.seed)
    return recipe.student.origin(state).tokenizer()


def _twins(recipe: Recipe, plan: Plan) -> Plan:
    """Return the plan with the students that are trained only to be compared with."""
    distill, data = recipe.distill, plan.data
    if recipe.benchmark.labels_only and distill.epochs > 0:
        size = distill.batch_size
        steps = -(-(data.transfer.count + plan.added) // size)
        twin = labels_only(distill, distill.epochs * steps / data.train.steps(size))
        before = plan = replace(plan, stage="labels_only")
        for _ in range(twin.cycles):
            plan = twin.planned(plan, "labels_only", None)
        plan = plan.bounded(before) if plan.added else plan
    if recipe.depths is not Depths.none and recipe.benchmark.depths_twin:
        plan = replace(plan, stage="twin without LayerDrop")
        for stage in recipe.twin_without_layer_drop():
            plan = stage.plan(plan)
    return plan
