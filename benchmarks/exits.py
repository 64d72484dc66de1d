"""Early exit on real rows: what leaving early costs in accuracy, and what it gains in mean latency at batch 1.

    python benchmarks/exits.py --teacher minilm-sst2 --train sst2/train.tsv --test sst2/dev.tsv --rows 2000

A finished classifier gets heads after its layers, in two ways: the heads learn alone (DeeBERT's second stage) and rows
leave by entropy, or heads and layers learn together (PABEE) and rows leave by patience. A fifth of the training rows is
for validation, where the threshold is chosen: the earliest that loses at most ``--max-drop`` points. Every way is run
with every seed. Latency is the mean over all test rows at their real lengths, one thread, batch 1, every model in turn
on each row; a median would hide what early exit is for, as it says nothing of the rows that leave late. Finished work
is kept in ``--cache``. Prints a Markdown table for each way and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from time import perf_counter
from typing import Any

import numpy as np
import seeds

from compress.benchmark.scores import ScoredRows
from compress.cli.compose import compose
from compress.machine import describe, versions
from compress.pipeline.artifact import Artifact
from compress.pipeline.state import State
from compress.runtimes.base import Session
from compress.runtimes.devices import CPU
from compress.runtimes.pytorch import torch_threads
from compress.runtimes.registry import RUNTIMES
from compress.runtimes.rows import model_inputs
from compress.tasks.base import Array

WAYS: dict[str, list[str]] = {
    "entropy, heads alone": ["exit=[entropy]"],
    "patience, learned together": ["exit=[patience]", "exit.patience.student_rate=5e-5"],
}
ALL = ("onnx", "dynamic")  # beside which the graphs with exits stand: all layers, fp32 and int8


def main() -> None:
    """Run every way with every seed, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="a finished classifier: its folder")
    for split in ("train", "test"):
        parser.add_argument(f"--{split}", required=True, metavar="FILE")
    parser.add_argument("--rows", type=int, required=True, help="training rows, a fifth of which is for validation")
    parser.add_argument("--max-drop", type=float, nargs="+", default=[0.5], help="points; a table for each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--words", nargs="+", default=[], metavar="WORD", help="more words of `compress run`")
    parser.add_argument("--output", default="runs/exits", help="folder of the runs")
    parser.add_argument("--cache", default="runs/.cache")
    given = parser.parse_args()

    found = []
    for drop in given.max_drop:
        for way, words in WAYS.items():
            runs = [run(given, [*words, f"exit.{rule_of(words)}.max_drop={drop}"], seed) for seed in given.seeds]
            print(f"\n{way}, at most {drop:g} points:\n\n{table(runs)}", flush=True)
            found += [{"way": way, "max_drop": drop, **part} for part in runs]
    for part in found:
        del part["correct"]
    print(json.dumps({"runs": found, "machine": describe(1), "versions": versions()}))


def rule_of(words: list[str]) -> str:
    """Return the rule that words choose."""
    return words[0].partition("[")[2].rstrip("]")


def run(given: argparse.Namespace, words: list[str], seed: int) -> dict[str, Any]:
    """Return what one run has: accuracy and mean milliseconds by model, layers that a row takes, correct answers."""
    common = [
        "recipe=soft_targets", "data=files", f"data.train={given.train}", f"data.test={given.test}",
        f"data.train_rows={given.rows}", "data.validation_share=0.2", f"teacher.model={given.teacher}", "student=saved",
        f"student.model={given.teacher}", "distill.epochs=0", "benchmark.labels_only=false",
        "benchmark.teacher_int8=false", "benchmark.rows=20", "benchmark.batches=[1]", "benchmark.tokens=[16]",
        "benchmark.seconds=0.1", f"seed={seed}", f"cache={given.cache}",
        f"output={given.output}/{rule_of(words)}-{words[-1].partition('=')[2]}-{seed}",
    ]  # fmt: skip
    made = compose([*common, *words, *given.words]).run()
    state, rule = made.state, rule_of(words)
    artifacts = [part for part in state.artifacts if part.name in (*ALL, f"{rule}-onnx", f"{rule}-int8")]
    correct, means = answered(state, artifacts)
    told = [part.details.report() for part in artifacts if part.details is not None]
    exits = next(details["exits"] for details in told if "exits" in details)
    return {
        "seed": seed, "threshold": exits["threshold"], "layers": exits["layers"],
        "average_layers": exits["average_layers"], "batches": exits["batches"], "ms": means, "correct": correct,
        "accuracy": {name: float(own.mean()) for name, own in correct.items()},
    }  # fmt: skip


def answered(state: State, artifacts: list[Artifact]) -> tuple[dict[str, Array], dict[str, float]]:
    """Return by artifact which test rows are answered correctly, and the mean milliseconds of a row."""
    scores, labels = ScoredRows(state), state.data.test.known_labels
    with torch_threads(1):
        sessions: dict[str, Session] = {}
        for artifact in artifacts:
            runtime = RUNTIMES[artifact.runtime]
            variant = runtime.variants(artifact.folder, CPU)[0].name
            sessions[artifact.name] = runtime.load(artifact.folder, CPU, threads=1, variant=variant)
        tokens = scores.reader(artifacts[0].folder).tokens
        rows = [model_inputs(tokens, tokens.of_row(row)) for row in range(tokens.rows)]
        for session in sessions.values():
            session(rows[0])
        spent: dict[str, list[float]] = {name: [] for name in sessions}
        correct: dict[str, list[bool]] = {name: [] for name in sessions}
        for row, label in zip(rows, labels, strict=True):
            for name, session in sessions.items():
                start = perf_counter()
                logits = session(row)
                spent[name].append(perf_counter() - start)
                correct[name].append(int(logits[0].argmax()) == int(label))
    means = {name: 1000 * float(np.mean(seconds)) for name, seconds in spent.items()}
    return {name: np.array(own) for name, own in correct.items()}, means


def table(runs: list[dict[str, Any]]) -> str:
    """Return the Markdown table of a way: means over seeds, and what early exit costs beside all layers."""
    lines = [
        "| model | accuracy by seed | less than all layers | layers of a row | mean ms of a row |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(name for part in runs for name in part["accuracy"]):
        whole = {"onnx": "onnx", "int8": "dynamic"}.get(name.rpartition("-")[2]) if name not in ALL else None
        having = [part for part in runs if name in part["accuracy"]]  # a run rejects what loses more than max_drop
        values = [part["accuracy"][name] for part in having]
        apart, layers = "", f"{runs[0]['layers']}"
        if whole is not None:
            layers = f"{np.mean([part['average_layers'] for part in having]):.2f}"
            if len(having) > 1:
                apart = seeds.shown(seeds.of_figures(values, [part["accuracy"][whole] for part in having]))
        by_seed = ", ".join(
            f"{100 * part['accuracy'][name]:.2f}" if name in part["accuracy"] else "rejected" for part in runs
        )
        milliseconds = np.mean([part["ms"][name] for part in having])
        lines.append(f"| {name} | {by_seed} | {apart} | {layers} | {milliseconds:.2f} |")
    batches = {size: np.mean([part["batches"][size] for part in runs]) for size in runs[0]["batches"]}
    told = ", ".join(f"{value:.2f} in batches of {size}" for size, value in batches.items())
    return "\n".join([*lines, "", f"Layers that a batch takes, those of its last row: {told}."])


if __name__ == "__main__":
    main()
