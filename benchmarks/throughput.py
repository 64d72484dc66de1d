"""Distillation throughput, in training rows per second, of this project against TextBrewer.

Both distil the same student (every other layer of the teacher) from the same teacher on the same rows,
with the same losses, batch size, optimizer (fused AdamW, gradients clipped, linear decay) and threads. The
variants take turns (A B C A B C ...), and ratios are taken within a round, so a drifting machine cancels out.

Timed is training to the last step and one save, with our pass of the teacher and the writing of its outputs.
Not timed on either side: loading the models, tokenizing, a warm-up of two batches.

losses: soft targets (T = 2, times T squared); squared error of embeddings and of the mapped hidden states;
  squared error of the mapped attention probabilities (transformers hands TextBrewer's adaptor probabilities,
  no scores). "soft only" compares where TextBrewer caches the teacher too (BasicDistiller, is_caching_logits).
padded to 128: as TextBrewer's examples pad; one epoch of a quarter of the rows, for it is slow and steady.

TextBrewer needs an environment of its own:
  python -m venv tb && tb/bin/pip install torch transformers tensorboardX && tb/bin/pip install --no-deps textbrewer

example (ten minutes on two cores with --rows 448 --threads 1; on a shared machine more threads give noise):
  python benchmarks/throughput.py --teacher PATH/TO/teacher --train PATH/TO/train.tsv --textbrewer-python tb/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from compress.data.dataset import Split
from compress.distill.losses import AttentionProbabilities, Embeddings, HiddenStates, Loss, SoftTargets
from compress.distill.objective import Distillation, Source
from compress.distill.teacher_outputs import FromModel, on_disk
from compress.errors import ModelError
from compress.machine import describe, versions
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.models.quantities import HIDDEN, SCORES
from compress.models.tokens import tokenize
from compress.pipeline.model import Model
from compress.pipeline.workshop import Workshop
from compress.student.bert import Bert
from compress.train import Precision, Training, fit

WORKER = Path(__file__).with_name("throughput_textbrewer.py")
LAYER_LOSSES = ("hidden", "attention")
TEMPERATURE = 2.0
SEED = 13


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    name: str
    ours: bool
    soft_only: bool = False
    forward: bool = False  # ours: the teacher runs on every batch
    shuffled: bool = False  # ours: batches are not grouped by length
    bf16: bool = False  # ours: the student is trained in bf16; its teacher answers in fp32 all the same
    padded: bool = False  # TextBrewer: rows are padded to the limit


VARIANTS = (
    Variant("ours", ours=True),
    Variant("textbrewer", ours=False),
    Variant("ours, student in bf16", ours=True, bf16=True),
    Variant("ours, teacher on every batch", ours=True, forward=True),
    Variant("ours, batches not grouped by length", ours=True, shuffled=True),
    Variant("ours, neither", ours=True, forward=True, shuffled=True),
    Variant("textbrewer, padded to the limit", ours=False, padded=True),
    Variant("ours, soft only", ours=True, soft_only=True),
    Variant("textbrewer, soft only", ours=False, soft_only=True),
)


@dataclass(frozen=True)
class Job:
    """What is trained on, alike for all variants."""

    teacher: Path
    student: Path
    layers: tuple[tuple[int, int], ...]
    texts: list[str]
    labels: list[int]  # no loss reads them; they say which classes batches mix
    epochs: int
    batch_size: int
    max_tokens: int
    threads: int
    python: Path  # of TextBrewer's environment


def ours(job: Job, variant: Variant) -> dict[str, float]:
    """Distil once from fresh models with the project's own parts; return its times."""
    teacher, student, tokenizer = load_model(job.teacher), load_model(job.student), load_tokenizer(job.teacher)
    split = Split(tuple(job.texts), None, np.array(job.labels[: len(job.texts)]))
    tokens = tokenize(split, tokenizer, job.max_tokens)
    losses: dict[str, Loss] = {"soft": SoftTargets(temperature=TEMPERATURE)}
    wanted = {}
    if not variant.soft_only:
        losses |= {"embeddings": Embeddings(), "hidden": HiddenStates(), "attention": AttentionProbabilities()}
        mapped = tuple(layer for _, layer in job.layers)
        wanted = {HIDDEN: (0, *mapped), SCORES: mapped}
    ends: list[float] = []

    def epoch_ended() -> dict[str, float]:
        ends.append(time.perf_counter())
        return {}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start, busy = time.perf_counter(), time.process_time()
        source: Source = FromModel(teacher, wanted)
        if not variant.forward:
            source = on_disk(Workshop(folder), Model(job.teacher, "teacher"), teacher, tokens, wanted)
        passed = time.perf_counter() - start
        fit(
            Distillation(student, losses, source, teacher.config, job.layers),
            tokens,
            Training(
                epochs=job.epochs,
                batch_size=job.batch_size,
                group_by_length=not variant.shuffled,
                precision=Precision.bf16 if variant.bf16 else Precision.fp32,
            ),
            seed=SEED,
            folder=folder / "training",
            title=variant.name,
            validate=epoch_ended,
        )
        save_model(student, tokenizer, folder / "student")
        seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    return {"seconds": seconds, "first_seconds": ends[0] - start, "cpu_seconds": cpu, "teacher_seconds": passed}


def textbrewer(job: Job, variant: Variant) -> dict[str, Any]:
    """Distil once by TextBrewer in its own process; return its times and its versions."""
    asked = {
        "teacher": str(job.teacher), "student": str(job.student), "layers": job.layers, "texts": job.texts,
        "losses": ("soft",) if variant.soft_only else ("soft", *LAYER_LOSSES), "temperature": TEMPERATURE,
        "epochs": job.epochs, "batch_size": job.batch_size, "max_tokens": job.max_tokens,
        "padded": variant.padded, "threads": job.threads, "seed": SEED,
    }  # fmt: skip
    done = subprocess.run(
        [str(job.python), str(WORKER)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        refuse(f"TextBrewer's side failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def measure(job: Job, variant: Variant) -> dict[str, Any]:
    """Return rows per second of a variant: of all epochs, of the first, and rows per second of processor time."""
    if variant.padded:
        job = replace(job, texts=job.texts[: len(job.texts) // 4], epochs=1)
    measured = ours(job, variant) if variant.ours else textbrewer(job, variant)
    rows = len(job.texts)
    return measured | {
        "rows_per_second": rows * job.epochs / measured["seconds"],
        "first_epoch": rows / measured["first_seconds"],
        "rows_per_cpu_second": rows * job.epochs / measured["cpu_seconds"],
    }


def against(variant: Variant) -> str:
    """Return the variant that this one's throughput is divided by: TextBrewer with the same losses."""
    return "textbrewer, soft only" if variant.soft_only else "textbrewer"


def chosen(names: list[str] | None) -> list[Variant]:
    """Return the variants with these names, and those that they are compared with; all where none is named."""
    wanted = {
        name for variant in VARIANTS for name in (variant.name, against(variant)) if variant.name in (names or ())
    }
    return [variant for variant in VARIANTS if not names or variant.name in wanted]


def summary(variants: list[Variant], rounds: list[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row a variant: medians over rounds, and the ratios of each round."""
    rows = []
    for variant in variants:
        mine = [turn[variant.name] for turn in rounds]
        base = [turn[against(variant)] for turn in rounds]
        row: dict[str, Any] = {"name": variant.name, "against": against(variant)}
        for key in ("rows_per_second", "first_epoch", "rows_per_cpu_second"):
            ratios = [a[key] / b[key] for a, b in zip(mine, base, strict=True)]
            row[key] = round(statistics.median(turn[key] for turn in mine), 2)
            row[f"{key}_ratio"] = round(statistics.median(ratios), 3)
            row[f"{key}_ratios"] = [round(ratio, 3) for ratio in ratios]
        if "teacher_seconds" in mine[0]:
            row["teacher_seconds"] = round(statistics.median(turn["teacher_seconds"] for turn in mine), 2)
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]], epochs: int) -> None:
    """Print the table for people."""
    print(f"{'':36}{f'rows/s, {epochs} epochs':>19}{'ratio [rounds]':>22}{'first epoch':>15}{'per CPU s':>15}")
    for row in rows:
        ratios = row["rows_per_second_ratios"]
        ratio = f"{row['rows_per_second_ratio']:.2f}x [{min(ratios):.2f}-{max(ratios):.2f}]"
        first = f"{row['first_epoch']:.1f} {row['first_epoch_ratio']:.2f}x"
        cpu = f"{row['rows_per_cpu_second']:.1f} {row['rows_per_cpu_second_ratio']:.2f}x"
        print(f"{row['name']:36}{row['rows_per_second']:19.1f}{ratio:>22}{first:>15}{cpu:>15}")
    print("Ratios are to textbrewer with the same losses, by round; first epoch includes our pass of the teacher.")


def refuse(message: str) -> NoReturn:
    """Say in one line why nothing can be measured."""
    print(f"throughput.py: {message}", file=sys.stderr)
    raise SystemExit(2)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        refuse(f"{message}. See --help.")


def arguments() -> argparse.Namespace:
    """Return the checked command line."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = _Parser(description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a classifier with its tokenizer")
    parser.add_argument("--train", type=Path, required=True, help="TSV with a header, label<TAB>text")
    parser.add_argument("--textbrewer-python", type=Path, required=True, help="Python of TextBrewer's environment")
    parser.add_argument("--rows", type=int, default=1000, help="rows drawn from --train (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over them (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each variant (default %(default)s)")
    parser.add_argument(
        "--variant", action="append", choices=[variant.name for variant in VARIANTS], metavar="NAME",
        help="only these, and what they are compared with (may be repeated; default all)",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=32, help="rows per step (default %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=128, help="longest row (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on both sides (default %(default)s)")
    given = parser.parse_args()
    least = {"rows": 4, "epochs": 1, "rounds": 1, "batch_size": 1, "max_tokens": 3, "threads": 1}
    for name, low in least.items():
        if getattr(given, name) < low:
            parser.error(f"--{name.replace('_', '-')} = {getattr(given, name)} must be at least {low}")
    for name in ("train", "textbrewer_python"):
        if not getattr(given, name).is_file():
            parser.error(f"--{name.replace('_', '-')} {getattr(given, name)} is not a file")
    return given


def read(path: Path, rows: int) -> tuple[list[str], list[int]]:
    """Return ``rows`` texts at random from a ``label<TAB>text`` file with a header, and their labels as numbers."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]
    if any(len(line) != 2 for line in lines) or len(lines) < rows:
        refuse(f"--train {path} must hold at least {rows} rows of label<TAB>text below a header")
    chosen = [lines[row] for row in np.random.default_rng(SEED).choice(len(lines), rows, replace=False)]
    return [text for _, text in chosen], np.unique([label for label, _ in chosen], return_inverse=True)[1].tolist()


@contextmanager
def job_of(given: argparse.Namespace) -> Iterator[Job]:
    """Make the student's folder and yield the job."""
    texts, labels = read(given.train, given.rows)
    try:
        teacher, tokenizer = load_model(given.teacher), load_tokenizer(given.teacher)
    except ModelError as error:
        refuse(f"--teacher {error}")
    student = Bert().build(teacher)
    layers = tuple(enumerate(student.config.teacher_layers, start=1))
    with tempfile.TemporaryDirectory() as folder:
        save_model(student, tokenizer, Path(folder))
        yield Job(
            given.teacher, Path(folder), layers, texts, labels, given.epochs, given.batch_size, given.max_tokens,
            given.threads, given.textbrewer_python,
        )  # fmt: skip


def main() -> None:
    """Measure, print the table, then one line of JSON."""
    given = arguments()
    torch.set_num_threads(given.threads)
    load = [os.getloadavg()[0]]
    variants, rounds = chosen(given.variant), list[dict[str, dict[str, Any]]]()
    with job_of(given) as job:
        warm_up = replace(job, texts=job.texts[: 2 * job.batch_size], epochs=1)
        for variant in variants:
            if variant.ours:
                ours(warm_up, variant)
        for number in range(given.rounds):
            found = {}
            for variant in variants:
                print(f"round {number + 1} of {given.rounds}: {variant.name}", file=sys.stderr)
                found[variant.name] = measure(job, variant)
            rounds.append(found)
            load.append(os.getloadavg()[0])
    rows = summary(variants, rounds)
    show(rows, given.epochs)
    settings = {name: value for name, value in vars(given).items() if isinstance(value, int)}
    print(
        json.dumps({
            "benchmark": "throughput", **settings, "results": rows, "load_average": [round(value, 2) for value in load],
            "machine": describe(given.threads), "versions": versions(),
            "textbrewer_versions": rounds[0][against(variants[0])]["versions"],
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
