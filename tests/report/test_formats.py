"""Numbers read as people write them."""

from __future__ import annotations

import pytest

from compress.report import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.0823, "0.0823"), (3.1, "3.10"), (21.2, "21.2"), (142.4, "142"), (1420.0, "1,420")],
)
def test_three_significant_digits(value: float | None, text: str) -> None:
    assert formats.significant(value) == text


def test_shares_are_percent_and_correlations_are_not() -> None:
    assert formats.with_unit("accuracy", 0.8434) == "84.3\N{NO-BREAK SPACE}%"
    assert formats.with_unit("pearson", 0.8434) == "0.843"
    assert formats.brackets("accuracy", (0.8271, 0.8584)) == " [82.7, 85.8]"


def test_an_interval_in_short_is_its_longer_side() -> None:
    assert formats.plus_minus("accuracy", 0.9, (0.86, 0.92)) == " ±4.0"


@pytest.mark.parametrize(("ratio", "text"), [(0.51, "−49\N{NO-BREAK SPACE}%"), (1.0001, "±0\N{NO-BREAK SPACE}%")])
def test_changes_have_a_sign_and_zero_has_both(ratio: float, text: str) -> None:
    assert formats.change(ratio) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (59.97, "60.0 s"), (200, "3 min 20 s"), (4320, "1 h 12 min")]
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (8200, "8,200"), (22_714_755, "22.7\N{NO-BREAK SPACE}M"), (1.2e9, "1.20\N{NO-BREAK SPACE}G")],
)
def test_parameters_in_short(count: float | None, text: str) -> None:
    assert formats.parameters(count) == text
