"""Shapes for a speed: which shares are sought, and that each is cut as it is named and costs no more than it may."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.known import Known
from compress.models.loading import load_config
from compress.prune.costs import shape_of
from compress.prune.shape import PruneToShape
from compress.search.shapes import BELOW, SHARES, Shapes, seconds, wanted_shares
from compress.student.bilstm import BiLstm
from tests.conftest import taught_state, tiny_model


def test_shares_lie_below_the_latency_that_is_asked_for_or_are_spread_where_none_is() -> None:
    assert wanted_shares(float("inf"), 5.0) == list(SHARES)
    assert wanted_shares(1.0, 2.0) == pytest.approx([below / 2 for below in BELOW])
    assert wanted_shares(2.1, 2.0) == pytest.approx([0.7 * 2.1 / 2])  # the teacher itself is nearly that fast


def test_finding_shapes_takes_longer_for_more_layers_and_slower_teachers() -> None:
    small = ((4, 32),) * 2
    assert seconds(small, 2.0) == pytest.approx(2 * seconds(small, 1.0))
    assert seconds(small * 3, 1.0) > seconds(small, 1.0)


def test_a_family_that_cannot_be_taken_apart_has_no_shapes(tmp_path: Path) -> None:
    shapes = Shapes(taught_state(tmp_path), 1)
    teacher = tiny_model().config
    assert shapes.misfit(Known(student=teacher)) == ""
    assert "cannot choose heads and widths" in shapes.misfit(Known(student=BiLstm().config(teacher)))


@pytest.mark.slow
def test_a_share_of_the_latency_gives_a_student_of_the_shape_that_is_named(tmp_path: Path) -> None:
    state = taught_state(tmp_path)
    whole = shape_of(load_config(state.given_teacher.folder))
    found = list(Shapes(state, 1).for_shares([0.9, 0.6, 1e-6]))
    assert [share for share, _ in found] == [0.9, 0.6]  # no shape is as fast as the last
    sizes = []
    for _, candidate in found:
        cut = candidate.cut["shape"]
        assert isinstance(cut, PruneToShape)
        assert len(cut.shape) == len(whole)
        assert candidate.layers == sum(heads > 0 for heads in cut.heads)
        student = candidate.untrained(state).given_student
        assert shape_of(load_config(student.folder)) == tuple(size for size in cut.shape if size != (0, 0))
        sizes.append(sum(cut.heads) + sum(cut.units))
    assert sizes[1] < sizes[0] < sum(heads + units for heads, units in whole)
