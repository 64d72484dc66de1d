"""Validation before and after training: the better weights go on, and a fall is reported either way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compress.distill.keep_best import Validated
from compress.distill.layers import Layers
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.stage import Distill
from compress.pipeline.answers import OfModel
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.tasks.classification import Classification
from tests.conftest import taught_state


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> State:
    """A state whose student has learned its labels, from a teacher that has not."""
    learn = Distill(losses={"hard": HardLabels()}, epochs=12, learning_rate=5e-3, batch_size=16)
    return learn(taught_state(tmp_path_factory.mktemp("good"), rows=160, seed=5))


def accuracy(state: State, model: Model | None = None) -> float:
    rows = state.data.validation
    return state.data.task.metrics(
        OfModel(model or state.given_student).logits(rows, state.workshop), rows.known_labels
    )["accuracy"]


def spoiling(**changes: object) -> Distill:
    return Distill(losses={"soft": SoftTargets()}, epochs=2, learning_rate=2e-2, batch_size=16, **changes)  # type: ignore[arg-type]


def test_training_that_helps_is_kept_without_a_word(good: State) -> None:
    record = good.records[-1]
    assert accuracy(good) > 0.8
    assert record.details.report()["validation"]["kept"] == "trained"
    assert not any("training lowered" in note for note in record.notes)


def test_the_weights_from_before_go_on_where_training_lowers_the_metric(good: State) -> None:
    after = spoiling()(good)
    kept = after.records[-1].details.report()["validation"]
    assert kept["kept"] == "start"
    assert kept["before"] == accuracy(good) == accuracy(after) > kept["after"]
    assert kept["difference"]["value"] == pytest.approx(kept["after"] - kept["before"])
    (note,) = (note for note in after.records[-1].notes if "training lowered" in note)
    assert note.startswith("training lowered accuracy on 40 validation rows from ")
    assert note.endswith("; the weights from before it go on")
    rows = good.data.test
    ours, theirs = (OfModel(state.given_student).logits(rows, state.workshop) for state in (after, good))
    assert np.array_equal(ours, theirs)


def test_a_fall_is_reported_also_where_the_setting_lets_it_be(good: State) -> None:
    after = spoiling(keep_best=False)(good)
    assert accuracy(after) < accuracy(good)
    (note,) = (note for note in after.records[-1].notes if "training lowered" in note)
    assert "go on" not in note


def test_a_recovery_keeps_the_better_and_one_of_another_form_is_not_compared(good: State) -> None:
    after = spoiling()(good)
    start = good.given_student
    recovered = after.given_recovery.train(after, start, 1.0)
    assert accuracy(after, Model.of(recovered)) == accuracy(good)
    other = after.given_recovery.train(after, start, 1.0, comparable=False)
    assert Validated.recorded(other) is None
    assert accuracy(after, Model.of(other)) < accuracy(good)


def test_equal_sides_keep_what_was_trained() -> None:
    logits, labels = np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([0, 1])
    validated = Validated.of(Classification(("a", "b")), logits, logits * 2, labels, True)
    assert not validated.start_goes_on
    assert validated.notes == []


def test_a_head_that_no_loss_reads_is_reported_with_what_it_answers(good: State) -> None:
    """A student that starts with a trained head answers well, whatever the stage is."""
    after = Layers(epochs=0.1, learning_rate=1e-5)(replace(good, teacher=good.given_student))
    note = after.records[-1].notes[0]
    assert note == (
        f"no loss of this stage reads the head, which is as it was: validation accuracy {accuracy(after):.4f}, "
        f"{accuracy(good):.4f} before"
    )
    assert accuracy(after) > 0.8
