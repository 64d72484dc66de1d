"""What a run's models answered to the test rows, kept beside its report so that runs can be compared row by row."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.tasks.base import Array

FILE = "answers.npz"
MOST_MIB = 64  # larger ones are not kept
_ROWS, _LABELS = "rows", "labels"  # beside the answers, whose names all have a slash


@dataclass(frozen=True)
class RowAnswers:
    """The logits (rows, …) of models by their place in the run, as ``artifacts/dynamic``, and the rows they are for."""

    rows: str  # a hash of the test rows
    labels: Array  # (rows, …)
    logits: Mapping[str, Array]


def packed(answers: RowAnswers) -> bytes | None:
    """Return the content of the file; None where it would be too large."""
    if sum(logits.nbytes for logits in answers.logits.values()) > MOST_MIB * 2**20:
        return None
    content = io.BytesIO()
    arrays: dict[str, Any] = {_ROWS: np.array(answers.rows), _LABELS: answers.labels, **answers.logits}
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def read(run: Path) -> RowAnswers | None:
    """Return what is kept in a run's folder; None where there is nothing, or nothing that can be read."""
    try:
        with np.load(run / FILE, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        return RowAnswers(str(arrays.pop(_ROWS)), arrays.pop(_LABELS), arrays)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
