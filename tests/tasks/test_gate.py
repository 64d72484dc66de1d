"""How much an artifact may lose: what a bound on the drop decides, and what few rows leave open."""

from __future__ import annotations

import numpy as np
import pytest

from compress.tasks.gate import Gate, beside, judged, rows_of
from compress.tasks.paired import ONE_SIDED, Difference, of_resampled_rows, of_right_answers


def answers(won: int, lost: int, rows: int) -> Difference:
    """Return the difference of an artifact that answers ``won`` rows rightly that its origin does not, and so on."""
    right, other = np.ones(rows, dtype=bool), np.ones(rows, dtype=bool)
    other[:won] = False
    right[won : won + lost] = False
    return of_right_answers("accuracy", right, other)


def outcome(won: int, lost: int, rows: int, max_drop: float = 1.0) -> str:
    return judged(answers(won, lost, rows), rows, max_drop).outcome


def test_the_bound_is_tangos_to_one_side() -> None:
    for rows in (50, 268, 1000):
        square = ONE_SIDED**2
        assert answers(0, 0, rows).floor == pytest.approx(-square / (rows + square))
    found = answers(30, 40, 1000)
    assert found.floor == pytest.approx(-0.01 - ONE_SIDED * np.sqrt(70 / 1000**2), abs=2e-3)  # Wald's, for many rows
    assert found.low < found.least < found.value


def test_no_changed_answer_shows_a_drop_of_a_point_from_268_rows_on() -> None:
    assert rows_of(0.01) == 268
    assert outcome(0, 0, 267) == "too few rows"
    assert outcome(0, 0, 268) == "holds"


@pytest.mark.parametrize(
    ("won", "lost", "rows", "found"),
    [
        (12, 12, 2000, "holds"),
        (40, 60, 5000, "holds"),
        (40, 100, 2000, "exceeds"),
        (10, 30, 20000, "holds"),  # a loss that is shown, and small
        (0, 1, 60, "too few rows"),  # 1.7 points, by a single answer
        (0, 6, 60, "exceeds"),  # few rows, and a loss all the same
        (3, 6, 600, "too few rows"),
        (5, 5, 5, "too few rows"),
        (0, 175, 320, "exceeds"),
    ],
)
def test_rows_decide_where_they_can(won: int, lost: int, rows: int, found: str) -> None:
    assert outcome(won, lost, rows) == found


def guard(name: str, value: float, p: float) -> Difference:
    return Difference(metric=f"recall:{name}", value=value, low=value - 0.03, high=value + 0.03, p=p)


def test_a_guard_rejects_where_its_fall_is_shown_and_the_worst_is_named() -> None:
    main = judged(answers(12, 12, 2000), 2000, 1.0)
    falls = [guard("a", -0.05, 1e-4), guard("b", -0.08, 1e-4), guard("c", 0.1, 1e-4)]
    found = beside(main, falls, 2000, 1.0)
    assert (found.outcome, found.metric, found.drop) == ("exceeds", "recall:b", pytest.approx(8.0))
    assert beside(main, [guard("a", -0.009, 1e-4)], 2000, 1.0) == main  # shown, and less than it may lose
    assert beside(main, [guard("a", -0.05, 0.3)], 2000, 1.0) == main  # noise
    assert beside(main, [], 2000, 1.0) == main
    assert beside(judged(answers(40, 100, 2000), 2000, 1.0), falls, 2000, 1.0).metric == "accuracy"


def test_many_guards_make_none_of_them_stricter() -> None:
    main = judged(answers(0, 0, 300), 300, 1.0)
    one_of_many = [guard("a", -0.05, 0.03), *(guard(name, 0.0, 1.0) for name in "bcdefgh")]
    assert beside(main, one_of_many[:1], 300, 1.0).outcome == "exceeds"
    assert beside(main, one_of_many, 300, 1.0) == main


def test_noise_alone_rejects_an_artifact_and_luck_passes_one_no_more_than_once_in_twenty_times() -> None:
    generator = np.random.default_rng(0)
    for rows, changed in ((40, 0.1), (300, 0.02), (600, 0.03), (2000, 0.05)):
        lossless = [generator.multinomial(rows, [changed / 2, changed / 2, 1 - changed]) for _ in range(300)]
        rejected = [outcome(int(won), int(lost), rows) == "exceeds" for won, lost, _ in lossless]
        assert np.mean(rejected) <= 0.08, (rows, changed)
        worse = [generator.multinomial(rows, [0.01, 0.02, 0.97]) for _ in range(300)]  # loses what is just allowed
        passed = [outcome(int(won), int(lost), rows) == "holds" for won, lost, _ in worse]
        assert np.mean(passed) <= 0.08, rows


def test_how_many_rows_could_tell_is_about_what_it_takes() -> None:
    found = judged(answers(3, 3, 300), 300, 1.0)
    assert found.outcome == "too few rows"
    scale = found.needed / 300
    assert 3 < scale < 12
    assert outcome(round(3 * scale), round(3 * scale), found.needed) == "holds"
    assert judged(answers(0, 0, 300), 300, 0.0).needed == 0


def test_a_resampled_metric_that_did_not_change_on_few_rows_shows_nothing() -> None:
    same = of_resampled_rows("f1", np.ones((20, 1)), lambda sums: sums[:, 0] * 0.0)
    assert same.floor == 0
    assert judged(same, 20, 1.0).outcome == "too few rows"
    assert judged(same, 300, 1.0).outcome == "holds"


def test_a_difference_without_a_bound_is_judged_by_its_interval() -> None:
    old = Difference(metric="accuracy", value=0.0, low=-0.02, high=0.02, p=1.0)
    assert judged(old, 3000, 2.0) == Gate(
        outcome="holds", metric="accuracy", rows=3000, max_drop=2.0, drop=0.0, bound=pytest.approx(2.0)
    )
