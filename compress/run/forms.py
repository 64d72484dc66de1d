"""Fail closed: an artifact that loses more than it may is put aside, and gentler forms are tried in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compress.benchmark.gate import gate
from compress.export.onnx import Onnx
from compress.known import Known
from compress.models.loading import load_config
from compress.pipeline.artifact import Artifact, Cost, Rejected
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.quantize.mixed import MixedSearch
from compress.report import gates
from compress.settings import all_faults
from compress.tasks.gate import POINT
from compress.telling import say, warn

if TYPE_CHECKING:
    from compress.run.recipe import Recipe

Do = Callable[[str, State, Stage], State]
"""Runs a stage under a name, and returns the state after it."""


@dataclass(frozen=True)
class FailClosed:
    """Judges what the exports and quantizations of a recipe make."""

    recipe: Recipe

    def after(self, before: State, made: State, stage: Stage, do: Do) -> State:
        """Return the state after a stage without the artifacts that lose too much, and with what took their places."""
        if self.recipe.max_drop is None:
            return made
        state = replace(made, artifacts=before.artifacts)
        for artifact in made.artifacts[len(before.artifacts) :]:
            judgement = self._judged(artifact, state)
            if judgement.gate is None or judgement.gate.passed:
                state = state.with_artifacts(judgement)
            else:
                state = self._instead(state, judgement, stage, do)
        return state

    def _judged(self, artifact: Artifact, state: State) -> Artifact:
        assert self.recipe.max_drop is not None
        benchmark = self.recipe.benchmark
        found = gate(artifact, state, benchmark.chosen_devices(), benchmark.threads, self.recipe.max_drop)
        if found is not None:
            (say if found.passed else warn)(f"  {gates.in_words(artifact.name, found)}")
        return replace(artifact, gate=found)

    def _instead(self, state: State, artifact: Artifact, stage: Stage, do: Do) -> State:
        """Return the state with ``artifact`` rejected, and with the first gentler form that may be kept."""
        costs, instead = _costs(artifact), ""
        rejected: list[Rejected] = []
        for name, form in self._gentler(state, artifact.name, stage):
            tried = do(name, state, form)
            made = self._judged(tried.artifacts[-1], state)
            costs = costs or _costs(made)
            if _all_in_floats(made):
                say(f"  {name}: nothing would be left in int8")
                continue
            assert made.gate is not None
            if made.gate.passed:
                state, instead = state.with_artifacts(made), made.name
                break
            rejected.append(Rejected(artifact=made, gate=made.gate, costs=_costs(made)))
        assert artifact.gate is not None
        costs = costs or stage.costs(state, artifact)
        why = "" if costs else "the parts of this form cannot be told apart"
        first = Rejected(artifact=artifact, gate=artifact.gate, costs=costs, why_no_costs=why)
        new = (replace(rejection, instead=instead) for rejection in (first, *rejected))
        return replace(state, rejected=(*state.rejected, *new))

    def _gentler(self, state: State, name: str, stage: Stage) -> Iterator[tuple[str, Stage]]:
        """Yield the forms to try, with their names: those of the stage, then fp32; none that the recipe has anyway."""
        assert self.recipe.max_drop is not None
        known = [*self.recipe.quantize.values(), *self.recipe.export.values()]
        student = Known(student=load_config(state.given_student.folder))
        taken = {*self.recipe.quantize, *self.recipe.export, *(artifact.name for artifact in state.artifacts)}
        for kind, form in stage.gentler(self.recipe.max_drop * POINT):
            fits = not any(all_faults(form, student)) and form not in known
            if fits and f"{name}-{kind}" not in taken:
                yield f"{name}-{kind}", form
        has_fp32 = any(isinstance(other, Onnx) for other in known) or any(
            artifact.runtime == "onnxruntime" and artifact.precision == "fp32" for artifact in state.artifacts
        )
        if not isinstance(stage, Onnx) and not has_fp32:
            yield f"{name}-fp32", Onnx()


def _costs(artifact: Artifact) -> tuple[Cost, ...]:
    """Return what int8 in each part costs, the costliest first; nothing where that was not measured."""
    found = artifact.details
    if not isinstance(found, MixedSearch):
        return ()
    parts = sorted(found.parts, key=lambda part: -part.sensitivity)
    return tuple(Cost(part.part, part.sensitivity, part.drop) for part in parts)


def _all_in_floats(artifact: Artifact) -> bool:
    found = artifact.details
    return isinstance(found, MixedSearch) and all(part.precision == "fp32" for part in found.parts)
