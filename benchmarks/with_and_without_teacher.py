"""Does the teacher help? One student, trained with and without it, over several seeds.

    python benchmarks/with_and_without_teacher.py --train train.tsv --test dev.tsv --teacher FOLDER

Both arms start from the same teacher layers and see the same rows, steps, order and learning rate; only the
losses differ. The test file is measured whole and never used to choose anything. Prints a table and, last,
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from compress.data import Files
from compress.distill.losses import AttentionScores, Embeddings, HardLabels, HiddenStates, Loss, SoftTargets
from compress.distill.stage import Distill
from compress.evaluate import predict_rows
from compress.machine import describe, versions
from compress.models.loading import load_model, load_tokenizer
from compress.models.tokens import tokenize
from compress.state import Model, State, Workshop
from compress.student.bert import Bert
from compress.tasks import TaskKind, wilson
from compress.teacher import FineTune, Teacher

ARMS: Mapping[str, Mapping[str, Loss]] = {
    "labels": {"hard": HardLabels()},
    "soft": {"hard": HardLabels(), "soft": SoftTargets()},
    "layers": {
        "hard": HardLabels(), "soft": SoftTargets(), "hidden": HiddenStates(), "embeddings": Embeddings(),
        "attention": AttentionScores(weight=0.1),
    },
}  # fmt: skip


def main() -> None:
    """Train every arm with every seed and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="label<TAB>text rows")
    parser.add_argument("--test", required=True, help="rows that are measured")
    parser.add_argument("--teacher", required=True, help="a folder with a head for these labels")
    parser.add_argument("--rows", type=int, default=20_000, help="training rows, a stratified sample")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--cache", default="runs/.cache")
    given = parser.parse_args()

    console = Console(stderr=True)
    source = Files(train=given.train, validation=given.test, train_rows=given.rows, validation_rows=500)
    data = source.load(TaskKind.auto, seed=13)
    state = State(data=data, workshop=Workshop(Path(given.cache), console), seed=13)
    state = Teacher(model=given.teacher, fine_tune=FineTune.never)(state)
    student = Bert(layers=given.layers)
    found: dict[str, list[float]] = {}
    for arm in given.arms:
        for seed in given.seeds:
            seeded = replace(state, seed=seed)
            distill = Distill(
                losses=dict(ARMS[arm]), epochs=given.epochs, learning_rate=given.learning_rate, batch_size=32
            )
            trained = distill(student(seeded)).given_student
            found.setdefault(arm, []).append(accuracy(trained, state))
            console.print(f"{arm}, seed {seed}: {found[arm][-1]:.4f}")
    teacher = accuracy(state.given_teacher, state)
    rows = len(data.test)
    table = Table(title=f"accuracy on {rows:,} rows, {len(data.train):,} training rows, {given.epochs:g} epochs")
    for column in (
        "losses",
        "seeds",
        "mean",
        "standard deviation",
        "of the teacher's",
        "95 % interval of the mean's rows",
    ):
        table.add_column(column)
    for arm, values in found.items():
        mean = float(np.mean(values))
        low, high = wilson(round(mean * rows), rows)
        table.add_row(
            " + ".join(ARMS[arm]),
            ", ".join(f"{value:.4f}" for value in values),
            f"{mean:.4f}",
            f"{np.std(values, ddof=1):.4f}" if len(values) > 1 else "-",
            f"{mean / teacher:.1%}",
            f"{low:.4f} to {high:.4f}",
        )
    Console().print(table)
    files = {name: Path(getattr(given, name)).name for name in ("train", "test", "teacher")}
    settings = {name: getattr(given, name) for name in ("rows", "layers", "epochs", "learning_rate", "seeds")}
    print(
        json.dumps(
            {
                **files,
                **settings,
                "teacher_accuracy": teacher,
                "accuracy": found,
                "machine": describe(0),
                "versions": versions(),
            }
        )
    )


def accuracy(model: Model, state: State) -> float:
    """Return the share of test rows that a model labels rightly."""
    tokenizer = load_tokenizer(model.folder)
    tokens = tokenize(state.data.test, tokenizer, tokenizer.model_max_length)
    logits = predict_rows(load_model(model.folder), tokens)
    return state.data.task.metrics(logits, state.data.test.known_labels)["accuracy"]


if __name__ == "__main__":
    main()
