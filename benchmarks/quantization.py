"""Int8 in several ways, of the same students: what is kept, how small, how fast, and does int8 run?

    python benchmarks/quantization.py --train sst2/train.tsv --test sst2/dev.tsv --teacher minilm-sst2 \
        --optimum-python optimum/bin/python

A student of three layers is distilled for every seed (TinyBERT's order: layers, then predictions), written as ONNX and
quantized in every way that `compress` has. Beside them, on the same graph: ONNX Runtime's ``quantize_dynamic`` as
it is by default and, with ``--optimum-python``, what Optimum's own environment makes by the configuration that it names
for this processor. Every file answers all test rows, one at a time. Latencies are of the first seed's files, all taking
turns: one row at its real length, and 32 rows of 128 tokens, on one thread and on two. What is done is kept in
``--cache``: the same command goes on after an interruption. Prints a Markdown table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import seeds

from compress.benchmark.latency import Reader, grid, real_rows
from compress.data import Files
from compress.distill.layers import Layers
from compress.distill.losses import AttentionScores, Embeddings, HardLabels, HiddenStates, SoftTargets
from compress.distill.stage import Distill
from compress.export.onnx import Onnx
from compress.machine import describe, int8_dot_product, versions
from compress.models.loading import load_tokenizer
from compress.models.tokens import tokenize
from compress.onnx.folder import MODEL, onnx_student, with_tokenizer
from compress.pipeline.artifact import Artifact
from compress.pipeline.model import Model
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Workshop
from compress.quantize.groups import GroupWise
from compress.quantize.half import HalfPrecision
from compress.quantize.int8 import DynamicInt8, StaticInt8
from compress.quantize.qat import QuantizationAware
from compress.quantize.ranges import Calibration
from compress.runtimes.devices import CPU
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.runtimes.registry import load_session
from compress.runtimes.rows import one_by_one
from compress.student.bert import Bert
from compress.tasks.base import Array
from compress.tasks.statistics import wilson
from compress.teachers.model import FineTune, Teacher

WORKER = Path(__file__).with_name("quantization_optimum.py")
FP32 = "fp32"
THREADS = (1, 2)
LEARNING_RATE = 2e-4  # of distillation, at its highest
BATCH, TOKENS = 32, 128

# name: the stage that makes it
CANDIDATES: Mapping[str, Stage] = {
    "dynamic": DynamicInt8(),
    "dynamic, one scale per matrix": DynamicInt8(per_channel=False),
    "dynamic, embeddings in fp32": DynamicInt8(embeddings=False),
    "static, min-max": StaticInt8(),
    "static, moving average": StaticInt8(calibration=Calibration.moving_average),
    "static, percentile": StaticInt8(calibration=Calibration.percentile),
    "static, entropy": StaticInt8(calibration=Calibration.entropy),
    "static, mse": StaticInt8(calibration=Calibration.mse),
    "groups of 32, 8 bits": GroupWise(bits=8),
    "groups of 32, 4 bits": GroupWise(bits=4),
    "fp16": HalfPrecision(),
    "qat": QuantizationAware(epochs=1.0, control=False),
    "qat, the distillation's learning rate": QuantizationAware(epochs=1.0, learning_rate=LEARNING_RATE, control=False),
}


def main() -> None:
    """Distil, quantize, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="label<TAB>text rows")
    parser.add_argument("--test", required=True, help="rows that are measured")
    parser.add_argument("--teacher", required=True, help="a folder with a head for these labels")
    parser.add_argument("--rows", type=int, default=4_000, help="training rows, a stratified sample")
    parser.add_argument("--epochs", type=float, default=3, help="of distillation; a third for layers, the rest after")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--optimum-python", type=Path, help="of Optimum's environment; left out without")
    parser.add_argument("--cache", default="runs/.cache")
    given = parser.parse_args()

    source = Files(train=given.train, validation=given.test, train_rows=given.rows, validation_rows=100)
    data = source.load("auto", seed=13)
    state = State.begin(data=data, workshop=Workshop(Path(given.cache)), seed=13)
    state = Teacher(model=given.teacher, fine_tune=FineTune.never)(state)
    by_seed = {}
    for seed in given.seeds:
        student = distilled(state.with_seed(seed), given.epochs)
        by_seed[seed] = folders(student, given.optimum_python)
    scores = {seed: {name: score(folder, state) for name, folder in made.items()} for seed, made in by_seed.items()}
    first = by_seed[given.seeds[0]]
    times = {threads: latencies(first, state, threads) for threads in THREADS}
    print(table(first, scores, times, state))
    files = {name: Path(getattr(given, name)).name for name in ("train", "test", "teacher")}
    accuracies = {seed: {name: found[0] for name, found in made.items()} for seed, made in scores.items()}
    about = {"rows": given.rows, "epochs": given.epochs, "learning_rate": LEARNING_RATE}
    facts = {"accuracy": accuracies, "latency_ms": times, "machine": describe(max(THREADS)), "versions": versions()}
    print(json.dumps({**files, **about, **facts}))


def distilled(state: State, epochs: float) -> State:
    """Return the state with a student of half the teacher's layers."""
    state = Bert(layers=3)(state)
    inside = {"hidden": HiddenStates(), "embeddings": Embeddings(), "attention": AttentionScores(weight=0.1)}
    state = Layers(losses=inside, epochs=epochs * 2 / 3, learning_rate=LEARNING_RATE)(state)
    losses = {"soft": SoftTargets(), "hard": HardLabels()}
    return Distill(losses=losses, epochs=epochs / 3, learning_rate=LEARNING_RATE, keep_best=False)(state)


def folders(state: State, optimum: Path | None) -> dict[str, Path]:
    """Return the folder of every file made of the state's student."""
    state = Onnx()(state)
    made = {FP32: onnx_student(state).folder}
    for name, stage in CANDIDATES.items():
        artifact: Artifact = stage(state).artifacts[-1]
        made[name] = artifact.folder
    graph = onnx_student(state)
    foreign: dict[str, Callable[[Path], None]] = {
        "ONNX Runtime's default": lambda folder: _default(graph.folder, folder)
    }
    if optimum is not None:
        foreign["Optimum's default"] = lambda folder: _optimum(optimum, graph.folder, folder)
    for name, work in foreign.items():
        product = state.workshop.make(Kind("foreign_int8", revision=1), [graph.key, name, int8_dot_product()], work)
        made[name] = product.folder
    return made


def _default(source: Path, folder: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(source / MODEL, folder / MODEL)
    with_tokenizer(source, folder, pairs=False)


def _optimum(python: Path, source: Path, folder: Path) -> None:
    job = {"model": str(source), "out": str(folder), "instructions": "avx512_vnni" if int8_dot_product() else "avx2"}
    subprocess.run([str(python), str(WORKER)], input=json.dumps(job), text=True, check=True, stdout=subprocess.PIPE)
    (folder / "model_quantized.onnx").rename(folder / MODEL)
    with_tokenizer(source, folder, pairs=False)


def score(folder: Path, state: State) -> tuple[float, Array]:
    """Return the accuracy of a file, and its logits, one test row at a time."""

    def work(out: Path) -> None:
        tokenizer = load_tokenizer(folder)
        tokens = tokenize(state.data.test, tokenizer, tokenizer.model_max_length)
        np.save(out / "logits.npy", one_by_one(load_session(folder), tokens, "accuracy"))

    product = state.workshop.make(Kind("file_logits", revision=1), [folder.name, state.data.test.fingerprint], work)
    logits: Array = np.load(product.folder / "logits.npy", allow_pickle=False)
    return state.data.task.metrics(logits, state.data.test.known_labels)["accuracy"], logits


def latencies(made: Mapping[str, Path], state: State, threads: int) -> dict[str, list[float]]:
    """Return the median milliseconds (one row at its real length; ``BATCH`` rows of ``TOKENS`` tokens), by name."""
    named: dict[str, Path] = {**made, "teacher": onnx_teacher(state)}
    tokenizers = {name: load_tokenizer(folder) for name, folder in named.items()}
    tokenizer = tokenizers[FP32]
    reader = Reader(tokenizer, tokenize(state.data.test, tokenizer, tokenizer.model_max_length))
    runners = {name: load_session(folder, threads=threads) for name, folder in named.items()}
    texts = [(text,) for text in state.data.test.texts]
    rows = real_rows(runners, dict.fromkeys(runners, reader), texts, rows=200, seconds=30.0, threads=threads)
    batches = grid(runners, tokenizers, batches=[BATCH], lengths=[TOKENS], seconds=3.0, threads=threads)
    return {name: [rows[name][0]["median_ms"], batches[name][0]["median_ms"]] for name in named}


def onnx_teacher(state: State) -> Path:
    """Return the folder of the teacher's own fp32 graph."""
    return onnx_student(replace(state, student=Model(state.given_teacher.folder, state.given_teacher.key))).folder


def table(
    first: Mapping[str, Path], scores: Mapping[int, Mapping[str, tuple[float, Array]]],
    times: Mapping[int, Mapping[str, list[float]]], state: State,
) -> str:  # fmt: skip
    """Return the Markdown table; speeds are ratios to the fp32 file in the same turns, points over seeds and rows."""
    rows = len(state.data.test)
    speeds = [f"{what}, {threads} thread{'s'[: threads - 1]}" for threads in THREADS for what in ("1 row", "32×128")]
    head = ("file", "accuracy by seed", "mean", "against fp32", "95 % interval, rows", "agree", "MiB", "int8 products",
            *speeds)  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, folder in first.items():
        values = [made[name][0] for made in scores.values()]
        mean = float(np.mean(values))
        low, high = wilson(round(mean * rows), rows)
        agree = [(made[name][1].argmax(-1) == made[FP32][1].argmax(-1)).mean() for made in scores.values()]
        executed = OnnxRuntime().executed(folder, CPU)
        ratios = []
        for threads in THREADS:
            for before, after in zip(times[threads][FP32], times[threads][name], strict=True):
                ratios.append(f"{after:.2f} ms" + ("" if name == FP32 else f", {before / after:.2f}×"))
        cells = (
            name, ", ".join(f"{value:.2%}"[:-1] for value in values), f"{mean:.2%}"[:-1],
            "" if name == FP32 else beside_fp32(name, scores, state), f"{low * 100:.1f} to {high * 100:.1f}",
            f"{np.mean(agree):.1%}", f"{(folder / MODEL).stat().st_size / 2**20:.1f}",
            f"{executed.int8} of {executed.products}", *ratios,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside_fp32(name: str, scores: Mapping[int, Mapping[str, tuple[float, Array]]], state: State) -> str:
    """Return how a file's accuracy differs from the fp32 file's, in points, with the interval where there are seeds."""
    ours, theirs = ([made[file][1] for made in scores.values()] for file in (name, FP32))
    task, labels = state.data.task, state.data.test.known_labels
    if len(ours) > 1:
        return seeds.shown(task.difference_over_seeds(ours, theirs, labels))
    return seeds.shown(task.difference(ours[0], theirs[0], labels))


if __name__ == "__main__":
    main()
