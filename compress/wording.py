"""Counts and words in messages."""

from __future__ import annotations

LONGEST = 40  # characters of the user's text that a message quotes


def counted(number: int, noun: str) -> str:
    """Return "1 row" or "4,000 rows"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return a text as a message quotes it, cut where it is long."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
