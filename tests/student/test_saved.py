"""A saved student: its tokens against the teacher's, whatever the size of its vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.distill.losses import AttentionScores, HiddenStates
from compress.distill.stage import GOES_ON, Distill
from compress.known import Known
from compress.models.loading import load_config
from compress.pipeline.model import Model
from compress.student.saved import Saved
from compress.tasks.tags import Tags
from tests.conftest import save_tiny
from tests.student.test_start import HEAD, a_state


def swap(folder: Path, first: str, second: str) -> Path:
    """Let two pieces of a saved tokenizer change places; the vocabulary keeps its size."""
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    numbers = whole["model"]["vocab"]
    numbers[first], numbers[second] = numbers[second], numbers[first]
    path.write_text(json.dumps(whole))
    return folder


@pytest.mark.parametrize("other", [False, True], ids=["the teacher's pieces", "other pieces"])
def test_of_the_same_size_with_other_pieces_it_is_refused_for_losses_that_compare_tokens(
    tmp_path: Path, other: bool
) -> None:
    teacher, student = save_tiny(tmp_path / "teacher", num_labels=2), save_tiny(tmp_path / "student", num_labels=2)
    if other:
        swap(student, "good", "film")
    config = Saved(model=str(student)).config(load_config(teacher))
    assert getattr(config, "own_tokens", False) == other
    faults = list(
        Distill(losses={"attention": AttentionScores()}).faults(Known(student=config, teacher=load_config(teacher)))
    )
    assert [fault.setting for fault in faults] == (["losses.attention"] if other else [])


def test_with_another_case_it_reads_other_tokens(tmp_path: Path) -> None:
    teacher, student = save_tiny(tmp_path / "teacher", num_labels=2), save_tiny(tmp_path / "student", num_labels=2)
    path = student / "tokenizer.json"
    whole = json.loads(path.read_text())
    whole["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(whole))
    assert Saved(model=str(student)).config(load_config(teacher)).own_tokens


def test_a_student_that_is_its_own_teacher_has_its_tokens(tmp_path: Path) -> None:
    student = save_tiny(tmp_path / "student", num_labels=2)
    assert not hasattr(Saved(model=str(student)).config(load_config(student)), "own_tokens")


def test_a_saved_tagger_with_the_teachers_tokens_is_used_and_one_with_others_refused(tmp_path: Path) -> None:
    task = Tags(("O", "B-per"))
    head = {"id2label": dict(enumerate(task.tags)), "label2id": {"O": 0, "B-per": 1}}
    teacher, student = (save_tiny(tmp_path / name, **head) for name in ("teacher", "student"))
    saved = Saved(model=str(student))

    def rules() -> list[str]:
        known = Known(student=saved.config(load_config(teacher)), teacher=load_config(teacher), task=task)
        return [fault.rule for fault in saved.faults(known) if "the teacher's tokens" in fault.rule]

    assert rules() == []
    swap(student, "good", "film")
    assert len(rules()) == 1


@pytest.mark.parametrize("other", [False, True], ids=["the teacher's pieces", "other pieces"])
def test_states_of_a_model_with_other_pieces_are_compared_by_words_through_a_projection(
    tmp_path: Path, other: bool
) -> None:
    state, student = a_state(tmp_path), save_tiny(tmp_path / "student", seed=9, **HEAD)
    if other:
        swap(student, "good", "film")
    made = Saved(model=str(student))(state).given_student
    losses = Distill(losses={"hidden": HiddenStates()}, epochs=1, batch_size=4)
    trained = losses.train(state, made)
    assert any("layers are compared by words" in note for note in trained.record["notes"]) == other
    again = losses.train(state, Model.of(trained))
    assert (GOES_ON in again.record["notes"]) == other  # of one width, and of two bases
