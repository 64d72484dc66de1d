"""Rows without labels: the teacher's answers take the place of labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compress.pipeline.state import State

FIELDS = {"training": "train", "validation": "validation", "test": "test"}


def with_answers_as_labels(state: State) -> State:
    """Return the state with the teacher's answers as the labels of splits that have none (`Dataset.answered`)."""
    data = state.data
    answered: dict[str, Any] = {}
    for name in data.answered:
        rows = getattr(data, FIELDS[name])
        logits = state.given_answers.logits(rows, state.workshop)
        answered[FIELDS[name]] = replace(rows, labels=data.task.labels_from(logits, rows.known_labels))
    return replace(state, data=replace(data, **answered)) if answered else state
