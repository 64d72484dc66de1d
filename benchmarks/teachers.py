"""The packaged MiniLM as a teacher: which learning rate and how many epochs make one worth learning from?

    python benchmarks/teachers.py --tweets 4000 --files trec/train.tsv trec/dev.tsv 2000 \
        --files snips/train.tsv snips/test.tsv 2000 --files sst2/train.tsv sst2/dev.tsv 4000

Every set is fine-tuned by the project's own `Teacher` stage, with its early stopping and its floor of steps, at every
rate of ``--rates``, decay of ``--decays``, limit of ``--epochs`` and seed. Validation rows, up to 500, are cut from
the training rows; the test rows named on the command line (of the packaged tweets 2,000) are measured and choose
nothing. TF-IDF stands beside. Each is compared with the teacher of the packaged rate and decay with the same limit,
where ``--rates`` and ``--decays`` have them, on the same rows: McNemar's test with one seed, over seeds and rows with
more. Every cell is kept in ``--cache``: run the same command after an interruption, and it resumes. Prints a Markdown
table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from seeds import shown

from compress.benchmark.baselines import tfidf
from compress.data import Data, Files, Tweets
from compress.data.dataset import Dataset
from compress.machine import describe, versions
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model, load_tokenizer
from compress.models.tokens import tokenize
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Workshop
from compress.tasks.base import Array
from compress.tasks.paired import Difference
from compress.teachers.model import Teacher
from compress.train import Decay

VALIDATION_ROWS, TWEETS_TESTED = 500, 2_000
DATA_SEED = 13  # of the samples, the same for all cells
RATES = (2e-5, 5e-5, 1e-4, 2e-4)


def main() -> None:
    """Fine-tune, measure, print."""
    plain = Teacher()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tweets", type=int, help="training rows of the packaged tweets; left out without")
    parser.add_argument("--files", nargs=3, action="append", default=[], metavar=("TRAIN", "TEST", "ROWS"))
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates, at their highest")
    parser.add_argument("--epochs", type=float, nargs="+", default=[plain.epochs], help="limits")
    parser.add_argument("--decays", nargs="+", choices=[decay.name for decay in Decay], default=[plain.decay.name])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--cache", default="runs/.cache")
    given = parser.parse_args()

    workshop = Workshop(Path(given.cache))
    cells: list[dict[str, Any]] = []
    baselines = {}
    for name, source in sources(given.tweets, given.files):
        data = source.load("auto", seed=DATA_SEED)
        print(f"{name}: TF-IDF", flush=True)
        baselines[name] = tfidf(data).figures.metrics
        answers: dict[tuple[float, str, float], Sequence[Array]] = {}
        for epochs, decay, rate in product(given.epochs, given.decays, given.rates):
            teacher = replace(plain, learning_rate=rate, epochs=epochs, decay=Decay[decay])
            states = (State.begin(data=data, workshop=workshop, seed=seed) for seed in given.seeds)
            found, answers[epochs, decay, rate] = zip(*(cell(teacher, state) for state in states), strict=True)
            cells.append({"set": name, "rows": len(data.train), "test_rows": len(data.test), "rate": rate,
                          "decay": decay, "epochs": epochs, "cells": found})  # fmt: skip
            print(f"{name}, {rate:g}, {decay}, {epochs:g}: {[cell['metric'] for cell in found]}", flush=True)
        for each in (each for each in cells if each["set"] == name):
            ours = answers[each["epochs"], each["decay"], each["rate"]]
            theirs = answers.get((each["epochs"], plain.decay.name, plain.rate), ours)
            each["against"] = "" if theirs is ours else shown(difference(data, ours, theirs))
    print(table(cells, baselines))
    results = {"cells": cells, "tfidf": baselines, "seeds": given.seeds, "settings": settings(plain)}
    print(json.dumps(results | {"machine": describe(1), "versions": versions()}))


def sources(tweets: int | None, files: list[list[str]]) -> Iterator[tuple[str, Data]]:
    """Yield each set's name, for files that of their folder, and where its rows come from."""
    if tweets is not None:
        yield "tweets", Tweets(train_rows=tweets, validation_rows=VALIDATION_ROWS, test_rows=TWEETS_TESTED)
    for train, test, rows in files:
        source = Files(train=train, validation=test, train_rows=int(rows), validation_rows=VALIDATION_ROWS)
        yield Path(train).resolve().parent.name, source


def settings(teacher: Teacher) -> dict[str, Any]:
    """Return the settings that all cells share."""
    names = ("batch_size", "early_stopping", "least_steps", "warmup", "weight_decay", "max_tokens")
    return {name: str(getattr(teacher, name)) for name in names}


def difference(data: Dataset, ours: Sequence[Array], theirs: Sequence[Array]) -> Difference:
    """Compare two ways to train by the answers of their teachers, seed by seed."""
    if len(ours) == 1:
        return data.task.difference(ours[0], theirs[0], data.test.known_labels)
    return data.task.difference_over_seeds(ours, theirs, data.test.known_labels)


def cell(teacher: Teacher, state: State) -> tuple[dict[str, Any], Array]:
    """Return what one teacher is worth on the test rows and how long it was trained, and what it answers."""
    after = teacher(state)
    record = after.records[-1]

    def work(folder: Path) -> dict[str, Any]:
        model, tokenizer = load_model(record.model.folder), load_tokenizer(record.model.folder)
        logits = predict_rows(model, tokenize(state.data.test, tokenizer, tokenizer.model_max_length))
        np.save(folder / "logits.npy", logits)
        return {"metrics": measured(state.data, logits)}

    start = time.perf_counter()
    made = state.workshop.make(Kind("teachers", revision=1), [record.model.key, state.data.test.fingerprint], work)
    metrics = made.record["metrics"]
    worth = {"metric": metrics[state.data.task.main_metric], "metrics": metrics, "note": record.notes[-1],
             "epochs": record.curves[-1]["epoch"], "steps": record.curves[-1]["step"],
             "seconds": record.seconds, "measuring_seconds": time.perf_counter() - start}  # fmt: skip
    return worth, np.load(made.folder / "logits.npy")


def measured(data: Dataset, logits: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the metrics of logits on the test rows."""
    return data.task.metrics(logits, data.test.known_labels)


def f1(metrics: Mapping[str, float]) -> float:
    """Return the mean F1 over classes, or of the second of two classes."""
    return metrics.get("macro_f1", metrics.get("f1", np.nan))


def table(cells: list[dict[str, Any]], baselines: dict[str, dict[str, float]]) -> str:
    """Return the Markdown table; TF-IDF is the last row of each set."""
    head = ("set", "training rows", "learning rate", "decay", "epochs, at most", "test metric by seed", "mean",
            "macro F1", "against the packaged rate", "epochs trained", "seconds")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for number, cell in enumerate(cells):
        found = cell["cells"]
        values = [100 * each["metric"] for each in found]
        row = (
            cell["set"], f"{cell['rows']:,}", f"{cell['rate']:g}", cell["decay"], f"{cell['epochs']:g}",
            ", ".join(f"{value:.2f}" for value in values), f"{np.mean(values):.2f}",
            f"{100 * np.mean([f1(each['metrics']) for each in found]):.1f}", cell["against"],
            ", ".join(f"{each['epochs']:.3g}" for each in found), f"{np.mean([each['seconds'] for each in found]):.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(row)} |")
        if number + 1 == len(cells) or cells[number + 1]["set"] != cell["set"]:
            metrics = baselines[cell["set"]]
            main = 100 * next(iter(metrics.values()))
            cheap = (cell["set"], f"{cell['rows']:,}", "TF-IDF", "", "", f"{main:.2f}", f"{main:.2f}",
                     f"{100 * f1(metrics):.1f}", "", "", "")  # fmt: skip
            lines.append(f"| {' | '.join(cheap)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
