"""Disk or forward: what decides, what is reported, and that a live teacher is the stored one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compress.distill.losses import HiddenStates, SoftTargets
from compress.distill.source import Keep, by_size
from compress.distill.stage import Distill
from compress.distill.teacher_outputs import FromModel
from compress.models.quantities import HIDDEN
from tests.conftest import taught_state, tiny_model
from tests.test_train import tokens


@pytest.mark.parametrize(
    ("gib", "epochs", "disk"),
    [(8.0, 1, True), (8.1, 1, False), (8.1, 99, False), (0.1, 0.5, False), (0.0, 3, True)],
)
def test_sizes_decide_and_nothing_else(gib: float, epochs: float, disk: bool) -> None:
    assert by_size(gib, 8.0, epochs)[0] is (Keep.disk if disk else Keep.forward)


def test_rows_that_are_taken_are_the_rows() -> None:
    rows = tokens(20)
    some = rows.take(np.array([7, 3, 19]))
    for place, row in enumerate((7, 3, 19)):
        ours, theirs = some.batch([place]), rows.batch([row])
        assert all(torch.equal(ours[name], theirs[name]) for name in ours if name != "rows")


@pytest.mark.parametrize(
    ("most", "message"),
    [(8.0, "kept on disk, 0 MiB"), (1e-6, "runs on every batch: its outputs would take 0.0 GiB, more than cache_gib")],
)
def test_where_outputs_come_from_is_noted_and_a_recovery_reads_what_was_kept(
    most: float, message: str, tmp_path: Path
) -> None:
    distill = Distill(losses={"soft": SoftTargets(), "hidden": HiddenStates()}, epochs=1, cache_gib=most)
    state = distill(taught_state(tmp_path))
    assert message in state.records[-1].notes[-1]
    shorter = state.given_recovery.train(state, state.given_student, 0.5)
    assert message in shorter.record["notes"][-1]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_live_teacher_computes_as_it_is_stored_while_the_student_trains_in_mixed_precision(kind: torch.dtype) -> None:
    teacher, batch = tiny_model(), tokens(4).batch([0, 1, 2])
    source = FromModel(teacher, {HIDDEN: (4,)})
    expected = source.batch(batch)
    with torch.autocast("cpu", dtype=kind):
        found = source.batch(batch)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found[HIDDEN][4], expected[HIDDEN][4])
