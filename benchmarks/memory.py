"""Does training need more memory as rows grow? Peak memory of distillation over 2,000, 20,000 and 200,000 rows.

    python benchmarks/memory.py --teacher FOLDER

Each number of rows runs in a process of its own: made-up texts, one training epoch cut to 50 steps, the teacher's
logits, hidden states and attention scores kept on disk. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

STEPS = 50
WORDS = ("a", "film", "with", "some", "words", "in", "it", "and", "an", "end", "that", "is", "good", "or", "bad")


def main() -> None:
    """Run every size in a fresh process and print what each needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="a folder with a head for two labels")
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.teacher, given.one)))
        return
    found = []
    for rows in given.rows:
        command = [sys.executable, __file__, "--teacher", given.teacher, "--one", str(rows)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(printed.splitlines()[-1]))
        line = "{rows:>9,} rows: {before:6.0f} MiB before training, {peak:6.0f} MiB at most; on disk {disk:7.0f} MiB"
        print(line.format(**found[-1]))
    print(json.dumps(found))


def measure(teacher: str, rows: int) -> dict[str, float]:
    """Return MiB of private memory before training, the most during it, and of the teacher's outputs on disk."""
    import torch

    from compress.data.dataset import Dataset, Split
    from compress.distill.losses import AttentionScores, HiddenStates, SoftTargets
    from compress.distill.source import Keep
    from compress.distill.stage import Distill
    from compress.mapped import StoredTexts
    from compress.pipeline.state import State
    from compress.pipeline.workshop import Workshop
    from compress.student.bert import Bert
    from compress.tasks.classification import Classification
    from compress.teachers.model import FineTune, Teacher

    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    texts = StoredTexts(" ".join(generator.choice(WORDS, 8)) for _ in range(rows))
    split = Split(texts, None, generator.integers(0, 2, rows))
    data = Dataset("made up", Classification(("0", "1")), split, split.take(np.arange(20)), split.take(np.arange(20)))
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        state = Teacher(model=teacher, fine_tune=FineTune.never, max_tokens=32)(
            State.begin(data=data, workshop=workshop, seed=1)
        )
        state = Bert(layers=1)(state)
        before = private()
        losses = {"soft": SoftTargets(), "hidden": HiddenStates(), "attention": AttentionScores()}
        epochs = STEPS * 32 / rows
        with watched() as seen:
            Distill(losses=losses, epochs=epochs, teacher_outputs=Keep.disk)(state)
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*.bin")) / 2**20
    return {"rows": rows, "before": before, "peak": max(seen), "disk": disk}


@contextmanager
def watched() -> Iterator[list[float]]:
    """Note the memory every 20 ms."""
    seen, stop = [private()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            seen.append(private())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def private() -> float:
    """Return MiB of memory that is this process's own: pages of files, which can be dropped, left out."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 2**10


if __name__ == "__main__":
    main()
