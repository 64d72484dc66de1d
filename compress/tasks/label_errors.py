"""Which labels look wrong, by answers that did not learn from them: confident learning (arXiv:1911.00068)."""

from __future__ import annotations

import numpy as np

from compress.tasks.base import Array


def label_errors(shares: Array, labels: Array) -> Array:
    """Return the rows whose label looks wrong, by the margin between both probabilities, largest first.

    Probabilities (rows, classes), labels (rows,). A row is counted to the likeliest of the classes whose probability
    reaches the mean that rows labelled so have of it, which allows for classes that are never answered surely; its
    label looks wrong where that is another class (Northcutt et al., arXiv:1911.00068, equations 1 and 2).
    """
    classes = shares.shape[1]
    sums = np.zeros(classes)
    np.add.at(sums, labels, shares[np.arange(len(labels)), labels])
    counts = np.bincount(labels, minlength=classes)
    sure = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = shares >= sure
    meant = np.where(confident, shares, -1.0).argmax(-1)
    margins = shares[np.arange(len(labels)), meant] - shares[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(confident.any(-1) & (meant != labels) & (margins > 0))
    ordered: Array = wrong[np.argsort(-margins[wrong], kind="stable")]
    return ordered
