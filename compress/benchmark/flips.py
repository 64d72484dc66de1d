"""The test rows to which an artifact and the student that it was made of give different answers."""

from __future__ import annotations

from compress.benchmark.figures import Flip, Flips
from compress.data.dataset import Dataset
from compress.tasks.base import Array

SHOWN = 20


def flips(data: Dataset, logits: Array, student: Array) -> Flips:
    """Return how many rows flipped, and the first of them.

    Logits (rows, outputs) are those of the test rows. A row has flipped where the task finds no agreement.
    """
    task, test = data.task, data.test
    if task.agreement(logits, student) == 1:
        return Flips(count=0)
    places = range(len(test))
    flipped = [i for i in places if task.agreement(logits[i : i + 1], student[i : i + 1]) < 1]

    def shown(answers: Array, row: int) -> str:
        return task.shown(answers[row : row + 1], test.known_labels[row : row + 1])[0]

    rows = []
    for row in flipped[:SHOWN]:
        text = test.texts[row] if test.pairs is None else f"{test.texts[row]} | {test.pairs[row]}"
        label = task.shown_label(test.known_labels[row])
        rows.append(Flip(row=row + 1, text=text, label=label, student=shown(student, row), artifact=shown(logits, row)))
    return Flips(count=len(flipped), rows=rows)
