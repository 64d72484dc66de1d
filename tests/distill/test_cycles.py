"""Warm restarts: a training goes on in cycles, and a shorter one is the beginning of a longer one."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.stage import CYCLE, Distill, labels_only
from compress.models.loading import load_model
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.tasks.base import Array
from tests.conftest import taught_state


def distill(cycles: int) -> Distill:
    return Distill(
        losses={"soft": SoftTargets(), "hard": HardLabels()}, epochs=1, learning_rate=5e-3, batch_size=16,
        cycles=cycles, keep_best=False,
    )  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Rows, a teacher, and a student of other weights."""
    return taught_state(tmp_path, seed=1)


def weights(model: Model) -> Array:
    found: Array = load_model(model.folder).classifier.weight.detach().numpy()
    return found


def test_each_cycle_goes_on_from_the_last_with_rows_in_another_order(state: State) -> None:
    whole = distill(3)(state).given_student
    model = state.given_student
    for cycle in range(3):
        model = Model.of(distill(1).train(state.with_seed(state.seed + cycle * CYCLE), model))
    assert whole.key == model.key
    assert not (weights(whole) == weights(state.given_student)).all()


def test_a_longer_training_takes_the_shorter_one_from_the_cache(state: State) -> None:
    first, second = distill(1)(state), distill(2)(state)
    assert len(first.records[-1].curves) < len(second.records[-1].curves)
    assert second.records[-1].curves[: len(first.records[-1].curves)] == first.records[-1].curves
    assert distill(2)(state).records[-1].reused


def test_the_twin_on_labels_alone_has_as_many_cycles() -> None:
    assert labels_only(distill(3), 1).cycles == 3


def test_cycles_of_nothing_and_fewer_than_one_are_refused() -> None:
    assert [fault.setting for fault in Distill(cycles=0).faults()] == ["cycles"]
    assert "cycles" in {fault.setting for fault in Distill(cycles=2, epochs=0).faults()}
