"""Rows of tokens as sessions take them."""

from __future__ import annotations

from compress.models.outputs import INPUTS
from compress.models.tokens import Tokens
from compress.progress import progress
from compress.runtimes.base import Session
from compress.tasks.base import Array


def model_inputs(tokens: Tokens, rows: list[int]) -> dict[str, Array]:
    """Return a padded batch (batch, tokens) by input."""
    return {name: value.numpy() for name, value in tokens.batch(rows).items() if name in INPUTS}


def one_by_one(session: Session, tokens: Tokens, title: str | None = None) -> Array:
    """Return the logits, as `Tokens.gathered`, of a session given one row at a time, as it is served."""
    rows = progress(map(tokens.of_row, range(tokens.rows)), title=title, unit="row", total=tokens.rows)
    return tokens.gathered((parts, session(model_inputs(tokens, parts))) for parts in rows)
