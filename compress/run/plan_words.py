"""A plan in words: a table of trainings, the shapes of both models, and what it all comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compress.families.forms.uneven import kept_heads, neurons
from compress.families.registry import known_family
from compress.pipeline.plan import Plan, PlannedWork, lengths
from compress.pipeline.record import Role
from compress.pipeline.stage import Stage
from compress.report.formats import MISSING, significant
from compress.run.recipe import Recipe
from compress.run.rehearsal import TrainingCost, parameter_mib
from compress.student.layer_map import layer_pairs


def rows_of(recipe: Recipe, plan: Plan, spent: Sequence[TrainingCost | None]) -> list[dict[str, str]]:
    """Return a row of the table for everything that a plan has, and for stages that train nothing."""
    mib = _sizes(recipe, plan)
    found: list[dict[str, str]] = []
    planned = list(zip(plan.steps, spent, strict=True))
    names = [name for name, _ in recipe.stages()]
    for name in dict.fromkeys([*names, *(step.stage for step in plan.steps)]):
        own = [(step, cost) for step, cost in planned if step.stage == name]
        found += [_row(step, cost) for step, cost in own]
        if not own:
            found.append(_line(name, "no training", mib=mib.get(name)))
    return found


def shapes_of(plan: Plan) -> Iterator[str]:
    """Yield the shape of teacher and student, layer by layer where layers differ, and which layers belong together."""
    for name, config in (("teacher", plan.teacher), ("student", plan.student)):
        if config is not None:
            yield f"{name}: {_shape(config)}, {parameter_mib(config):,.0f} MiB in fp32"
    if plan.teacher is not None and known_family(plan.student) and known_family(plan.teacher):
        pairs = layer_pairs(None, plan.student, plan.teacher)
        yield "layers, student from teacher: " + ", ".join(f"{ours} from {theirs}" for ours, theirs in pairs)


def totals_of(recipe: Recipe, plan: Plan, spent: Sequence[TrainingCost | None]) -> Iterator[str]:
    """Yield what a plan comes to, and what is not in it."""
    known = [cost for cost in spent if cost is not None]
    seconds = sum(cost.seconds + cost.outputs_seconds for cost in known)
    trained = [_mib(step, cost) or 0.0 for step, cost in zip(plan.steps, spent, strict=True)]
    mib = sum(trained) + sum(_sizes(recipe, plan).values())
    yield f"in all: about {_minutes(seconds)} minutes of training, and {mib:,.0f} MiB in {recipe.cache_folder}"
    benchmark = recipe.benchmark
    conditions = 1 + len(benchmark.batches) * len(benchmark.tokens)
    yield (
        "not in it: exports, quantization, what pruning measures, and the benchmark, which times each model for up to "
        f"{significant(conditions * benchmark.seconds)} s"
    )


def _row(step: PlannedWork, cost: TrainingCost | None) -> dict[str, str]:
    if step.added is not None:
        return _line(
            step.stage, f"{step.added.copies} copies of {step.added.of:,} rows", rows=f"≤ {step.added.at_most:,}"
        )
    training = step.training
    assert training is not None
    bound = "≤ " if training.at_most else ""
    widths = lengths(training.tokens)
    return _line(
        step.stage, training.title, rows=f"{bound}{training.count:,}",
        tokens=f"{bound}{int(widths.sum() * training.count / max(1, len(widths))):,}",
        epochs=f"{training.settings.epochs:g}", steps=f"{bound}{training.steps:,}",
        minutes=MISSING if cost is None else bound + _minutes(cost.seconds + cost.outputs_seconds),
        mib=_mib(step, cost),
    )  # fmt: skip


def _line(
    stage: str, training: str, rows: str = MISSING, tokens: str = MISSING, epochs: str = MISSING,
    steps: str = MISSING, minutes: str = MISSING, mib: float | None = None,
) -> dict[str, str]:  # fmt: skip
    return {
        "stage": stage, "training": training, "rows": rows, "tokens per epoch": tokens, "epochs": epochs,
        "steps": steps, "minutes": minutes, "MiB": MISSING if mib is None else f"{mib:,.0f}",
    }  # fmt: skip


def _sizes(recipe: Recipe, plan: Plan) -> Mapping[str, float]:
    """Return the size of the model that a stage leaves without training it, MiB, by the stage's name."""
    kinds: dict[Role, Any] = {Role.teacher: plan.teacher, Role.student: plan.student, Role.pruning: plan.student}
    trained = {step.stage for step in plan.steps}
    return {
        name: parameter_mib(config)
        for name, stage in recipe.stages()
        if name not in trained and isinstance(stage, Stage) and (config := kinds.get(stage.role)) is not None
    }


def _mib(step: PlannedWork, cost: TrainingCost | None) -> float | None:
    """Return what a training leaves in the cache: the model, and the teacher's outputs."""
    if step.training is None:
        return None
    return parameter_mib(step.training.learner) + (0.0 if cost is None else cost.outputs_mib)


def _shape(config: Any) -> str:
    """Return the layers of a model, one by one where they differ; of one without layers its type."""
    if known_family(config) is None:
        return str(config.model_type)
    each = [
        f"{len(heads)} heads × {units:,} units"
        for heads, units in zip(kept_heads(config), neurons(config), strict=True)
    ]
    if len(set(each)) == 1:
        return f"{len(each)} layers of {each[0]}, width {config.hidden_size:,}"
    return "; ".join(f"layer {number}: {layer}" for number, layer in enumerate(each, start=1))


def _minutes(seconds: float) -> str:
    return significant(seconds / 60, 2)
