"""Do reading and training need more memory as rows grow? Own memory and rate for 2,000, 20,000 and 200,000 rows.

    python benchmarks/memory.py --teacher FOLDER

Each number of rows runs in a process of its own: rows of 28 made-up words in ten files of JSON lines, read by their
pattern, checked and cut into splits; then 200 steps of distillation with logits, hidden states and attention scores,
which come from disk where they pay and fit into --cache-gib. Prints a line for each and, last, one line of JSON. Rates
are rows per second of the processor, one thread, as other programs may run beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

STEPS = 200
FILES = 10
WORDS = (
    "a film with some words in it and an end that is good or bad the of to was for on as at by his her they this have"
)
LINE = (
    "{rows:>10,} rows of {tokens:.0f} tokens: read at {rate:,.0f} rows/s, {before:.0f} MiB before, {reading:.0f} at "
    "most, {read:.0f} after; tokens at {token_rate:,.0f} rows/s; {steps} steps and what they need in "
    "{steps_seconds:.0f} s, {training:.0f} MiB at most; teacher's outputs on disk {disk:.0f} MiB"
)


def main() -> None:
    """Run every size in a fresh process and print what each needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="a folder with a head for two labels")
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--cache-gib", type=float, default=8.0, help="most disk for the teacher's outputs")
    parser.add_argument("--disk", action="store_true", help="keep the teacher's outputs on disk whatever their size")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.teacher, given.one, given.cache_gib, on_disk=given.disk)))
        return
    found = []
    for rows in given.rows:
        command = [sys.executable, __file__, "--teacher", given.teacher, "--one", str(rows)]
        command += ["--cache-gib", str(given.cache_gib), *(["--disk"] if given.disk else [])]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(printed.splitlines()[-1]))
        print(LINE.format(**found[-1]), flush=True)
    print(json.dumps(found))


def write_rows(folder: Path, rows: int, names: list[str]) -> str:
    """Write that many rows, labelled with one of two names, in some files; return the pattern of their names."""
    generator, vocabulary = np.random.default_rng(0), np.array(WORDS.split())
    for number, part in enumerate(np.array_split(np.arange(rows), FILES)):
        with (folder / f"rows-{number}.jsonl").open("w") as file:
            for start in range(0, len(part), 10_000):
                count = min(10_000, len(part) - start)
                words, labels = generator.choice(vocabulary, (count, 28)), generator.integers(2, size=count)
                for text, label in zip(words, labels, strict=True):
                    file.write(json.dumps({"label": names[label], "text": " ".join(text)}) + "\n")
    return str(folder / "rows-*.jsonl")


def measure(teacher: str, rows: int, cache_gib: float, *, on_disk: bool) -> dict[str, float]:
    """Return rates, seconds of the processor, and MiB of own memory, of reading rows and of the first steps."""
    import torch

    from compress.data import Files
    from compress.distill.losses import AttentionScores, HiddenStates, SoftTargets
    from compress.distill.source import Keep
    from compress.distill.stage import Distill
    from compress.models.loading import load_config, load_tokenizer
    from compress.models.tokens import tokenize
    from compress.pipeline.state import State
    from compress.pipeline.workshop import Workshop
    from compress.student.bert import Bert
    from compress.teachers.model import FineTune, Teacher

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = list(load_config(teacher).id2label.values())
        pattern = write_rows(folder, rows, names)
        before, start = private(), time.process_time()
        with watched() as reading:
            data = Files(train=pattern).load("auto", 1)
        found = {"rows": rows, "rate": rows / (time.process_time() - start), "before": before, "reading": max(reading)}
        found["read"] = private()
        workshop = Workshop(folder)
        state = Teacher(model=teacher, fine_tune=FineTune.never, max_tokens=32)(
            State.begin(data=data, workshop=workshop, seed=1)
        )
        state = Bert(layers=1)(state)
        start = time.process_time()
        tokens = tokenize(data.validation, load_tokenizer(state.given_teacher.folder), 32)
        found |= {"tokens": tokens.lengths.mean(), "token_rate": len(tokens) / (time.process_time() - start)}
        losses = {"soft": SoftTargets(), "hidden": HiddenStates(), "attention": AttentionScores()}
        epochs, start = STEPS * 32 / len(data.train), time.process_time()
        with watched() as training:
            keep = Keep.disk if on_disk else Keep.auto
            Distill(losses=losses, epochs=epochs, teacher_outputs=keep, cache_gib=cache_gib)(state)
        found |= {"training": max(training), "steps": STEPS, "steps_seconds": time.process_time() - start}
        found["disk"] = sum(path.stat().st_size for path in folder.rglob("*.bin")) / 2**20
    return {key: float(value) if key not in ("rows", "steps") else value for key, value in found.items()}


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
