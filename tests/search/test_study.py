"""The trials of a search in Optuna's journal: kills, divergence, damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.errors import DivergedError, StorageError
from compress.search.candidates import Candidate, Trial
from compress.search.study import JOURNAL, PATIENCE, Choice, CycleResult, Study
from compress.student.static import Static

CHOICES = [
    Choice(Candidate(name, Static(), 0, (3e-4, 1e-2), 2e-3), ("mse", "soft"), ms)
    for name, ms in (("small", 1.0), ("large", 2.0))
]


def study(folder: Path) -> Study:
    return Study(folder, CHOICES, lambda metric, _: metric, 13)


def run(opened: Study, trials: int, metric: dict[int, float] | None = None) -> list[Trial]:
    """Run trials of one cycle each, of a metric by the trial's place; return what was trained."""
    found: list[Trial] = []

    def trained(trial: Trial, _: int) -> CycleResult:
        found.append(trial)
        return CycleResult((metric or {}).get(len(found), 0.5), 1.0)

    opened.run(trials, 1, trained, always, lambda: None)
    return found


def always(trial: Trial, cycle: int) -> bool:
    return True


def test_every_candidate_is_tried_first_and_no_trial_twice_after_a_restart(tmp_path: Path) -> None:
    first = run(study(tmp_path), 4)
    assert [trial.candidate.name for trial in first[:2]] == ["small", "large"]
    assert [trial.learning_rate for trial in first[:2]] == [2e-3, 2e-3]
    later = run(study(tmp_path), 8)
    assert len(later) == 4
    assert not any(trial in first for trial in later)


def test_a_trial_that_diverges_is_told_and_counts_and_is_not_tried_again(tmp_path: Path) -> None:
    opened = study(tmp_path)

    def metric(trial: Trial, cycle: int) -> CycleResult:
        if trial.candidate.name == "small" or cycle == 2:
            raise DivergedError("Training diverged: the loss is nan at step 3.")
        return CycleResult(0.7, 3.0)

    opened.run(2, 2, metric, always, lambda: None)
    failed, half = opened.tried()
    assert (failed.metrics, failed.ended) == ([], "failed")
    assert "diverged" in failed.failure
    assert (half.metrics, half.cycle_seconds, half.ended) == ([0.7], [3.0], "complete")
    assert "diverged" in half.failure
    assert study(tmp_path).ended == 2


def test_what_a_killed_process_was_at_is_tried_again(tmp_path: Path) -> None:
    killed: list[Trial] = []

    def metric(trial: Trial, _: int) -> CycleResult:
        killed.append(trial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study(tmp_path).run(4, 1, metric, always, lambda: None)
    assert killed[0] in run(study(tmp_path), 4)


def test_a_line_that_was_not_finished_is_left_out_and_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    run(study(tmp_path), 2)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "worker')
    assert study(tmp_path).ended == 2
    assert len(run(study(tmp_path), 3)) == 1
    journal.write_bytes(b"no journal\n" + whole)
    with pytest.raises(StorageError, match="Move it away and run the same command again"):
        study(tmp_path)


def test_a_lock_that_a_killed_process_left_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    assert len(run(study(tmp_path), 2)) == 2


def test_what_there_is_no_time_for_is_not_trained_and_does_not_count(tmp_path: Path) -> None:
    opened, asked = study(tmp_path), list[str]()

    def small(trial: Trial, cycle: int) -> bool:
        asked.append(trial.candidate.name)
        return trial.candidate.name == "small" and cycle == 1

    opened.run(3, 2, lambda *_: CycleResult(0.5, 1.0), small, lambda: None)
    assert {(tried.trial.candidate.name, len(tried.metrics)) for tried in opened.tried()} == {("small", 1)}
    assert opened.ended == 3
    before = len(asked)
    opened.run(9, 2, lambda *_: CycleResult(0.5, 1.0), lambda *_: asked.append("") or False, lambda: None)
    assert (opened.ended, len(asked) - before) == (3, PATIENCE)


def test_workers_share_the_proposals_and_begin_no_more_than_there_are_to_be(tmp_path: Path) -> None:
    first = study(tmp_path)
    other = Study(tmp_path, CHOICES, lambda metric, _: metric, 13, worker=1)
    tried: list[Trial] = []

    def train(trial: Trial, _: int) -> CycleResult:
        tried.append(trial)
        if len(tried) == 1:  # the other works meanwhile
            other.run(4, 1, train, always, lambda: None)
        return CycleResult(0.5, 1.0)

    first.run(4, 1, train, always, lambda: None)
    assert {trial.candidate.name for trial in tried[:2]} == {"small", "large"}
    assert len(tried) == first.ended == other.ended == 4


def test_rows_are_a_choice_where_there_are_several_and_are_read_back(tmp_path: Path) -> None:
    both = [Choice(choice.candidate, choice.ways, choice.ms, ("given", "perturbed")) for choice in CHOICES]
    opened = Study(tmp_path, both, lambda metric, _: metric, 13)
    found = run(opened, 12)
    assert [trial.rows for trial in found[:2]] == ["given", "given"]
    assert {trial.rows for trial in found} == {"given", "perturbed"}
    assert [tried.trial for tried in opened.tried()] == found
