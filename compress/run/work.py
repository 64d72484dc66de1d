"""Carry out a recipe: check it, run its stages, measure, and write the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from compress.benchmark.depths import Depths, depth_curve
from compress.benchmark.figures import DepthCurve, Measurements
from compress.benchmark.untrained import untrained
from compress.describe import mistyped
from compress.distill.stage import curves_of, labels_only
from compress.errors import ModelError, RecipeError
from compress.pipeline.artifact import Artifact
from compress.pipeline.model import Model
from compress.pipeline.record import Record, Role
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.processes import refuse_several
from compress.run.check import Checked, check, told
from compress.run.folder import repeat, report_of, write_run
from compress.run.forms import FailClosed
from compress.run.handed_over import settled
from compress.run.ledger import Ledger
from compress.run.names import point_to_latest
from compress.run.place import claimed, identity, lasting
from compress.run.result import Run
from compress.run.sent import send
from compress.teachers.base import BaseTeacher
from compress.teachers.standing_in import with_answers_as_labels
from compress.telling import say, warn
from compress.train.trackers import tracked
from compress.usage import Meter, metered

if TYPE_CHECKING:
    from compress.run.recipe import Recipe


def carry_out(given: Recipe, command: str | None = None, label: str = "") -> Run:
    """Do everything that is not done yet, write the run's folder and return the run; see `Recipe.run`."""
    refuse_several()
    with metered() as whole:
        return _carried_out(given, command, label, whole)


def _carried_out(given: Recipe, command: str | None, label: str, whole: Meter) -> Run:
    started = datetime.now().astimezone()
    recipe: Recipe = lasting(settled(given))
    if wrong := list(mistyped(recipe)):
        raise RecipeError(wrong)
    checked = check(recipe, say)
    for line in (*told(checked.data), *map(str, checked.models)):
        say(line)
    run = identity(recipe, checked.data.fingerprint)
    with claimed(recipe, run, label) as folder:
        recipe = replace(recipe, name=given.name or folder.resolve().name)
        ledger = Ledger()
        with tracked(recipe.report_to, recipe.recipe, recipe.name or "") as trackers:
            state, measured = _work(recipe, checked, ledger)
            report = report_of(recipe, state, measured, ledger.costs, started, whole.read(), command or repeat(folder))
            for tracker in trackers:
                send(report, tracker)
        write_run(folder, run, recipe, state, report, measured.answers)
    if not recipe.output and (note := point_to_latest(folder)):
        warn(note)
    return Run(folder, report, state)


def _work(recipe: Recipe, checked: Checked, ledger: Ledger) -> tuple[State, Measurements]:
    """Run all stages, measure, and return the last state and the measurements."""
    answers = tuple(
        f"checked before the start: {'; '.join(tried.answers)}" for tried in checked.models if tried.answers
    )
    workshop = Workshop(recipe.cache_folder, run=recipe.folder)
    state = State.begin(data=checked.data, workshop=workshop, seed=recipe.seed, notes=answers)
    gates = FailClosed(recipe)
    for title, stage in recipe.stages():
        try:
            after = _told(ledger, title, state, stage)
            if isinstance(stage, BaseTeacher):
                after = with_answers_as_labels(after)
        except ModelError as error:
            if not (state.rejected and isinstance(stage, Stage) and stage.gathers):
                raise
            warn(f"  {error}")
            after = replace(state, skipped=(*state.skipped, f"{title} was not written: {error}"))
        if len(after.artifacts) > len(state.artifacts) and isinstance(stage, Stage):
            after = gates.after(state, after, stage, partial(_told, ledger))
        state = after
    state = _with_student_folder(state)
    twin = recipe.benchmark.labels_only and recipe.distill.epochs > 0
    label_student = _label_student(recipe, state, ledger) if twin else None
    depths = _depth_curves(recipe, state, ledger)
    if recipe.benchmark.teacher_int8 and not recipe.alone:
        with ledger.part("baseline: the teacher itself in int8"):
            state = replace(state, untrained=untrained(state))
    with ledger.part("benchmark"):
        return state, recipe.benchmark.measure(state, label_student, depths)


def _label_student(recipe: Recipe, state: State, ledger: Ledger) -> Record:
    """Train the distilled student's twin on labels alone."""
    begun = recipe.student(state)
    for stage in recipe.prepare.values():
        if stage.role is Role.pruning:  # the same student is that in the same shape
            begun = stage(begun)
    start = begun.given_student
    steps = [rows.steps(recipe.distill.batch_size) for rows in (state.data.transfer, state.data.train)]
    twin = labels_only(recipe.distill, recipe.distill.epochs * steps[0] / steps[1])  # as many steps
    with ledger.part("baseline: the same student, labels alone"):
        products = twin.in_cycles(state, start, "labels_only")
    return twin.record("labels_only", products, curves=curves_of(products))


def _depth_curves(recipe: Recipe, state: State, ledger: Ledger) -> list[DepthCurve]:
    """Measure the distilled student, before any pruning, at every depth; and its twin, where that is asked for."""
    order = recipe.depths
    if order is Depths.none:
        return []
    with ledger.part("the distilled student at every depth"):
        curves = [depth_curve(state, _distilled(state), order, "distill", recipe.layer_drop)]
    if recipe.benchmark.depths_twin:
        with ledger.part("its twin, trained without LayerDrop"):
            twin = replace(state, student=None, records=(), notes=())
            for stage in recipe.twin_without_layer_drop():
                twin = stage(twin)
            curves.append(depth_curve(state, _distilled(twin), order, "twin", 0.0))
    return curves


def _told(ledger: Ledger, title: str, state: State, stage: Callable[[State], State]) -> State:
    """Run a stage, telling its title and its result."""
    with ledger.part(title) as notes:
        after = _named(stage(state), title, state)
        notes += [note for record in after.records[len(state.records) :] for note in record.notes]
    return after


def _named(after: State, title: str, before: State) -> State:
    """Give what a stage added the name that the recipe has for it, so that two stages of a kind can be told apart."""
    records, artifacts = len(before.records), len(before.artifacts)
    new = enumerate(after.records[records:], start=1)
    return replace(
        after,
        records=(*after.records[:records], *(replace(r, name=title if i == 1 else f"{title}-{i}") for i, r in new)),
        artifacts=(
            *after.artifacts[:artifacts],
            *(replace(a, name=f"{title}-{a.variant}" if a.variant else title) for a in after.artifacts[artifacts:]),
        ),
    )


def _with_student_folder(state: State) -> State:
    student = state.given_student
    artifact = Artifact(name="student", runtime="pytorch", precision="fp32", folder=student.folder, key=student.key)
    return replace(state, artifacts=(artifact, *state.artifacts))


def _distilled(state: State) -> Model:
    """Return the model after distillation, the last generation's."""
    return [record.model for record in state.records if record.model and record.role is Role.distillation][-1]
