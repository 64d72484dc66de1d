"""The test rows on which an artifact says something else than the student that it was made of."""

from __future__ import annotations

from typing import Any

from compress.data.dataset import Dataset
from compress.tasks.base import Array

SHOWN = 20


def flips(data: Dataset, logits: Array, student: Array) -> dict[str, Any]:
    """Return ``count`` and the first ``rows`` that flipped: number from 1, text, label, what each of the two says.

    Logits (rows, outputs) are those of the test rows. A row has flipped where the task finds no agreement.
    """
    task, test = data.task, data.test
    if task.agreement(logits, student) == 1:
        return {"count": 0, "rows": []}
    places = range(len(test))
    found = [i for i in places if task.agreement(logits[i : i + 1], student[i : i + 1]) < 1]

    def shown(answers: Array, row: int) -> str:
        return task.shown(answers[row : row + 1])[0]

    rows = []
    for row in found[:SHOWN]:
        text = test.texts[row] if test.pairs is None else f"{test.texts[row]} | {test.pairs[row]}"
        label = task.shown_label(test.known_labels[row])
        rows.append(
            {
                "row": row + 1,
                "text": text,
                "label": label,
                "student": shown(student, row),
                "artifact": shown(logits, row),
            }
        )
    return {"count": len(found), "rows": rows}
