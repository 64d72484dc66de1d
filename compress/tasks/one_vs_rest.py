"""The cheap baseline for several labels: a logistic regression for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.tasks.base import Array, Baseline, Features
from compress.tasks.thresholds import cuts, tuned

HELD_OUT = 5  # one training row in so many chooses thresholds
CERTAIN = 30.0  # logit of a label that all training rows have, or minus that of one that none has


def one_vs_rest(texts: Sequence[str], labels: Array, features: Features) -> Baseline:
    """Return a logistic regression for each label (rows, labels), whose logits are 0 where its threshold lies.

    Thresholds are chosen as a model's are, on one training row in five, by regressions on the others.
    """
    matrix, rows = features(texts), np.random.default_rng(0).permutation(len(labels))
    held, rest = np.sort(rows[::HELD_OUT]), np.sort(np.setdiff1d(rows, rows[::HELD_OUT]))
    first = _fitted(matrix[rest], labels[rest])
    thresholds = cuts(tuned(_logits(first, matrix[held]), labels[held]))
    linear = _fitted(matrix, labels)
    return Baseline(
        kind=f"{features.kind} + a logistic regression for each label",
        parameters=sum(int(own.coef_.size) for own in linear if not isinstance(own, float)),
        logits=lambda given: _logits(linear, features(given)) - thresholds,
    )


def _fitted(matrix: Any, labels: Array) -> list[Any]:
    """Return a regression for each label; for one that all or none of the rows have, or that is unknown, its logit."""
    from sklearn.linear_model import LogisticRegression

    found: list[Any] = []
    for column in labels.T:
        if np.isnan(column).any() or len(set(column.tolist())) < 2:
            found.append(CERTAIN if column.min() == 1 else -CERTAIN)
        else:
            found.append(LogisticRegression(C=4.0, max_iter=1000).fit(matrix, column))
    return found


def _logits(linear: list[Any], matrix: Any) -> Array:
    """Return the logits (rows, labels) of regressions on features."""
    columns = [
        np.full(matrix.shape[0], own) if isinstance(own, float) else own.decision_function(matrix) for own in linear
    ]
    return np.stack(columns, axis=1)
