"""Every method on the same rows: is it better than the same student trained on labels alone?

    python benchmarks/methods.py --train sst2/train.tsv --test sst2/dev.tsv --teacher minilm-sst2 \
        --synonyms lexicon.tsv --other-train trec/train.tsv --other-test trec/dev.tsv

Within a student all methods see the same training rows, number of steps, batch size and highest learning rate,
over the same seeds, and the same teacher, unless a method's name says otherwise; preparations take their steps
from the same budget, and so does augmentation, which adds rows and not steps; its rows are drawn once, by the first
seed. Teachers that are made here are not in the budget: fine-tuned ones, and the head of a masked language model that
DistilBERT and dual training need and the packaged model lacks. The test file is measured whole and never used to
choose anything. What is done is kept in ``--results``, one line per run, with the answers to the test rows beside it:
the same command resumes, and methods are compared with labels alone over seeds and rows.
Prints a Markdown table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import seeds

from compress.augment.base import Augmentation
from compress.augment.perturb import Perturb
from compress.augment.substitute import Substitute
from compress.benchmark.latency import Reader, real_rows
from compress.data import Files
from compress.distill.dual import Dual
from compress.distill.general import General
from compress.distill.layers import Layers
from compress.distill.losses import (
    AttentionScores,
    AttentionTransfer,
    Cosine,
    Embeddings,
    HardLabels,
    HiddenStates,
    LogitsMSE,
    Loss,
    MiniLM,
    Patient,
    Relations,
    SoftTargets,
)
from compress.distill.masked_lm import MaskedLM
from compress.distill.multi_task import MultiTask, OtherTask
from compress.distill.progressive import Progressive
from compress.distill.schedules import Schedule
from compress.distill.stage import Distill
from compress.distill.theseus import Theseus
from compress.machine import describe, versions
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model, load_tokenizer
from compress.models.outputs import parameters
from compress.models.tokens import tokenize
from compress.onnx.folder import onnx_student
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.runtimes.pytorch import torch_threads
from compress.runtimes.registry import load_session
from compress.student.base import Student
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.student.mobile import Mobile
from compress.student.shared import Shared
from compress.student.words import Pieces
from compress.tasks.base import Array
from compress.tasks.statistics import wilson
from compress.teachers.model import FineTune, Teacher
from compress.telling import say
from compress.train import Decay, Training

LABELS = "labels alone"


@dataclass(frozen=True)
class Method:
    """One row of the table: what trains the student within its budget."""

    student: str  # a name in STUDENTS
    name: str
    losses: Mapping[str, Loss]
    prepare: Mapping[str, Training] = field(default_factory=dict)
    augment: Mapping[str, Augmentation] = field(default_factory=dict)
    teacher: Teacher | None = None  # default: the one that is given
    prepared: float = 0.0  # share of the budget that the preparations take
    generations: int = 1  # each takes the whole budget
    layer_map: Any = None


@dataclass(frozen=True)
class Kind:
    """A student, and the learning rate and the share of the budget that all methods train it with."""

    student: Student
    learning_rate: float
    epochs: float = 1.0  # times the budget: small students are cheap


PRETRAINED = Teacher().source()  # the packaged MiniLM, without a head for any task
NARROW = Bert(layers=3, hidden_size=192, heads=12, intermediate_size=768, start="random")

STUDENTS: Mapping[str, Kind] = {
    "3 layers": Kind(Bert(layers=3), 2e-4),
    "3 first layers": Kind(Bert(layers=3, layer_map="first"), 2e-4),
    "3 layers, MobileBERT": Kind(Mobile(layers=3), 5e-4),
    "3 layers, shared": Kind(Shared(layers=3), 2e-4),
    "3 layers of the pretrained": Kind(Bert(layers=3, start=PRETRAINED), 2e-4),
    "3 narrow layers": Kind(NARROW, 5e-4),
    "3 narrow layers, 3,000 pieces": Kind(replace(NARROW, vocabulary=3_000), 5e-4),
    "BiLSTM": Kind(BiLstm(), 2e-3, epochs=2.0),
    "BiLSTM, words": Kind(BiLstm(tokens=Pieces.words), 2e-3, epochs=2.0),
    "CNN, words": Kind(Cnn(tokens=Pieces.words), 2e-3, epochs=2.0),
}

HARD: Mapping[str, Loss] = {"hard": HardLabels()}
SOFT: Mapping[str, Loss] = {"soft": SoftTargets(), "hard": HardLabels()}
MSE: Mapping[str, Loss] = {"mse": LogitsMSE()}
TINYBERT: Mapping[str, Loss] = {
    "hidden": HiddenStates(),
    "embeddings": Embeddings(),
    "attention": AttentionScores(weight=0.1),
}
FALLING = SoftTargets(temperature=8.0, temperature_end=1.0, temperature_schedule=Schedule.linear)
OF_THESE_ROWS = Teacher(
    model="minilm", epochs=2, learning_rate=1e-4, decay=Decay.linear, early_stopping=0, least_steps=0
)
PERTURBED = {"perturb": Perturb(copies=4)}
ANNEALED: Mapping[str, Loss] = {
    "soft": SoftTargets(temperature=1.0, weight_end=0.0, weight_schedule=Schedule.linear),
    "hard": HardLabels(weight=0.0, weight_end=1.0, weight_schedule=Schedule.linear),
}

METHODS = (
    Method("3 layers", LABELS, HARD),
    Method("3 layers", "soft targets, T = 1", {"soft": SoftTargets(temperature=1.0)}),
    Method("3 layers", "soft targets, T = 2", {"soft": SoftTargets()}),
    Method("3 layers", "soft targets, T = 8", {"soft": SoftTargets(temperature=8.0)}),
    Method("3 layers", "soft + labels (Hinton)", SOFT),
    Method("3 layers", "soft + labels, T from 8 to 1", {"soft": FALLING, "hard": HardLabels()}),
    Method("3 layers", "logits' squared error", MSE),
    Method("3 layers", "teacher annealing (BAM)", ANNEALED),
    Method("3 layers", "cosine of mapped layers + soft + labels", {**SOFT, "cosine": Cosine(mapped=True)}),
    Method("3 layers", "TinyBERT's layer losses + soft + labels", {**SOFT, **TINYBERT}),
    Method("3 layers", "attention transfer + hidden + soft + labels",
           {**SOFT, "attention_transfer": AttentionTransfer(), "hidden": HiddenStates()}),
    Method("3 layers", "MiniLM + soft + labels", {**SOFT, "minilm": MiniLM()}),
    Method("3 layers", "MiniLMv2 + soft + labels", {**SOFT, "relations": Relations()}),
    Method("3 layers", "born again, second generation", SOFT, generations=2),
    Method("3 layers", "Theseus from layers 2, 4 and 6, then labels", HARD, {"theseus": Theseus()}, prepared=2 / 3),
    Method("3 layers", "layers as TinyBERT, without its augmentation, then soft + labels", SOFT, {"layers": Layers()},
           prepared=2 / 3),
    Method("3 layers", "soft + labels, perturbed rows too", SOFT, augment=PERTURBED),
    Method("3 layers", "teacher of these rows: soft + labels", SOFT, teacher=OF_THESE_ROWS),
    Method("3 layers", "three teachers of these rows: soft + labels", SOFT, teacher=replace(OF_THESE_ROWS, copies=3)),
    Method("3 first layers", LABELS, HARD),
    Method("3 first layers", "PKD-Skip", {**SOFT, "patient": Patient(weight=100.0)}, layer_map="skip"),
    Method("3 first layers", "PKD-Last", {**SOFT, "patient": Patient(weight=100.0)}, layer_map="last"),
    Method("3 layers, MobileBERT", LABELS, HARD),
    Method("3 layers, MobileBERT", "soft + labels (Hinton)", SOFT),
    Method("3 layers, MobileBERT", "progressive, then soft + labels", SOFT,
           {"progressive": Progressive(embeddings=True)}, prepared=2 / 3),
    Method("3 layers, shared", LABELS, HARD),
    Method("3 layers, shared", "soft + labels (Hinton)", SOFT),
    Method("3 layers, shared", "TinyBERT's layer losses + soft + labels", {**SOFT, **TINYBERT}),
    Method("3 layers of the pretrained", LABELS, HARD),
    Method("3 layers of the pretrained", "soft + labels (Hinton)", SOFT),
    Method("3 layers of the pretrained", "masked words as DistilBERT, then soft + labels", SOFT,
           {"masked_lm": MaskedLM(teacher=PRETRAINED, head_epochs=3)}, prepared=2 / 3),
    Method("3 narrow layers", LABELS, HARD),
    Method("3 narrow layers", "soft + labels (Hinton)", SOFT),
    Method("3 narrow layers", "general, then soft + labels", SOFT, {"general": General(teacher=PRETRAINED)},
           prepared=2 / 3),
    Method("3 narrow layers", "general and layers as TinyBERT, without its augmentation, then soft + labels", SOFT,
           {"general": General(teacher=PRETRAINED), "layers": Layers()}, prepared=2 / 3),
    Method("3 narrow layers, 3,000 pieces", LABELS, HARD),
    Method("3 narrow layers, 3,000 pieces", "soft + labels (Hinton)", SOFT),
    Method("3 narrow layers, 3,000 pieces", "dual, then soft + labels", SOFT,
           {"dual": Dual(teacher=PRETRAINED, head_epochs=3)}, prepared=2 / 3),
    Method("BiLSTM", LABELS, HARD),
    Method("BiLSTM", "logits' squared error (Tang et al.)", MSE),
    Method("BiLSTM", "soft + labels (Hinton)", SOFT),
    Method("BiLSTM", "logits' squared error, perturbed rows too (Tang et al.)", MSE, augment=PERTURBED),
    Method("BiLSTM, words", LABELS, HARD),
    Method("BiLSTM, words", "logits' squared error (Tang et al.)", MSE),
    Method("BiLSTM, words", "logits' squared error, perturbed rows too (Tang et al.)", MSE, augment=PERTURBED),
    Method("CNN, words", LABELS, HARD),
    Method("CNN, words", "logits' squared error", MSE),
)  # fmt: skip


def methods(given: argparse.Namespace) -> Iterator[Method]:
    """Yield the methods, those that need files only where they are given, by a text in the name or by the student."""
    more = []
    if given.synonyms:
        copies = {"substitute": Substitute(copies=4, synonyms=given.synonyms)}
        more.append(Method("3 layers", "soft + labels, rows with synonyms of a thesaurus too", SOFT, augment=copies))
    if given.other_train:
        files = Files(train=given.other_train, validation=given.other_test)
        other = OtherTask(data=files, teacher=replace(OF_THESE_ROWS, epochs=3.0))
        prepare = {"multi_task": MultiTask(tasks={"other": other})}
        more.append(Method("3 layers", "multi-task (BAM), then soft + labels", SOFT, prepare, prepared=2 / 3))
    for method in (*METHODS, *more):
        if given.methods is None or any(text in f"{method.student}: {method.name}" for text in given.methods):
            yield method


def main() -> None:
    """Train what is not trained yet, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="label<TAB>text rows")
    parser.add_argument("--test", required=True, help="rows that are measured")
    parser.add_argument("--teacher", required=True, help="a folder with a head for these labels")
    parser.add_argument("--rows", type=int, default=4_000, help="training rows, a stratified sample")
    parser.add_argument("--epochs", type=float, default=3, help="the budget of every method, over these rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--synonyms", help="word<TAB>synonym, for TinyBERT's augmentation, which is left out without")
    parser.add_argument("--other-train", help="rows of another task, for multi-task distillation, left out without")
    parser.add_argument("--other-test", help="its validation rows")
    parser.add_argument("--methods", nargs="+", metavar="TEXT", help="only those with one of these in `student: name`")
    parser.add_argument("--results", type=Path, default=Path("runs/methods.jsonl"))
    parser.add_argument("--cache", default="runs/.cache")
    parser.add_argument("--table", action="store_true", help="train nothing; measure and print what is done")
    given = parser.parse_args()

    source = Files(train=given.train, validation=given.test, train_rows=given.rows, validation_rows=100)
    data = source.load("auto", seed=13)
    state = State.begin(data=data, workshop=Workshop(Path(given.cache)), seed=13)
    state = Teacher(model=given.teacher, fine_tune=FineTune.never)(state)
    budget = {"rows": given.rows, "epochs": given.epochs}
    if not given.table:
        for seed in given.seeds:
            for method in methods(given):
                about = {"method": method.name, "student": method.student, "seed": seed} | budget
                if not any(about.items() <= done.items() for done in read(given.results)):
                    trained, found = train(method, state.with_seed(seed), given.epochs, given.seeds[0])
                    logits, labels = answers(trained.given_student, trained)
                    found |= {"accuracy": accuracy(logits, labels, trained)}
                    found |= {"answers": seeds.keep(given.results, about, logits, labels)}
                    given.results.parent.mkdir(parents=True, exist_ok=True)
                    with given.results.open("a") as file:
                        file.write(json.dumps(about | found) + "\n")
                    say(f"{method.student}, {method.name}, seed {seed}: {found['accuracy']:.4f}")
    runs = [run for run in read(given.results) if budget.items() <= run.items() and run["seed"] in given.seeds]
    times = latencies(runs, state)
    teacher = accuracy(*answers(state.given_teacher, state), state)
    print(table(runs, times, teacher, state, given.results))
    files = {name: Path(getattr(given, name)).name for name in ("train", "test", "teacher")}
    facts = {"teacher_accuracy": teacher, "latency_ms": times, "machine": describe(1), "versions": versions()}
    shown = [{name: value for name, value in run.items() if name not in ("folder", "key", "answers")} for run in runs]
    print(json.dumps({**files, **budget, **facts, "runs": shown}))


def read(path: Path) -> list[dict[str, Any]]:
    """Return what is done."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def train(method: Method, state: State, epochs: float, drawn: int) -> tuple[State, dict[str, Any]]:
    """Return the state with the student, and its parameters, seconds and place; augmentation has the seed ``drawn``."""
    kind = STUDENTS[method.student]
    if method.teacher is not None:
        alone = State.begin(data=state.data, workshop=state.workshop, seed=13)
        state = replace(method.teacher(alone), seed=state.seed)
    for augmentation in method.augment.values():
        state = augmentation(state.with_seed(drawn)).with_seed(state.seed)
    state = kind.student(state)
    before = len(state.records)
    budget = epochs * kind.epochs * len(state.data.train) / len(state.data.transfer)
    for stage in method.prepare.values():
        share = budget * method.prepared / len(method.prepare)
        state = replace(stage, epochs=share, learning_rate=kind.learning_rate)(state)
    state = Distill(
        losses=dict(method.losses), epochs=budget * (1 - method.prepared), learning_rate=kind.learning_rate,
        generations=method.generations, layer_map=method.layer_map, keep_best=False,
    )(state)  # fmt: skip
    student = state.given_student
    return state, {
        "parameters": parameters(load_model(student.folder)),
        "seconds": sum(record.seconds for record in state.records[before:]),
        "folder": str(student.folder),
        "key": student.key,
    }


def answers(model: Model, state: State) -> tuple[Array, Array]:
    """Return a model's logits on the test rows (rows, classes), and the rows' labels (rows,)."""
    tokenizer = load_tokenizer(model.folder)
    tokens = tokenize(state.data.test, tokenizer, tokenizer.model_max_length)
    return predict_rows(load_model(model.folder), tokens), state.data.test.known_labels


def accuracy(logits: Array, labels: Array, state: State) -> float:
    """Return the share of test rows that are labelled rightly."""
    return state.data.task.metrics(logits, labels)["accuracy"]


def latencies(runs: list[dict[str, Any]], state: State) -> dict[str, float]:
    """Return the median milliseconds of a row in ONNX Runtime fp32, one thread, batch 1, real lengths, by student.

    All students and the teacher take turns. Methods leave a student's shape, and so its latency, alone.
    """
    first = {run["student"]: Model(Path(run["folder"]), run["key"]) for run in reversed(runs)}
    models = {"teacher": state.given_teacher, **first}
    folders = {name: onnx_student(replace(state, student=model)).folder for name, model in models.items()}
    readers = {}
    for name, folder in folders.items():
        tokenizer = load_tokenizer(folder)
        readers[name] = Reader(tokenizer, tokenize(state.data.test, tokenizer, tokenizer.model_max_length))
    texts = [(text,) for text in state.data.test.texts]
    with torch_threads(1):
        runners = {name: load_session(folder) for name, folder in folders.items()}
        found = real_rows(runners, readers, texts, rows=200, seconds=60.0, threads=1)
    return {name: entries[0]["median_ms"] for name, entries in found.items()}


def table(
    runs: list[dict[str, Any]], times: Mapping[str, float], teacher: float, state: State, results: Path
) -> str:  # fmt: skip
    """Return the Markdown table: a student's methods under the same student trained on labels alone."""
    rows = len(state.data.test)
    head = ("student", "method", "accuracy by seed", "mean", "sd", "95 % interval, rows", "against labels", "kept",
            "parameters", "ms", "training s")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["student"], run["method"]), []).append(run)
    order = {(method.student, method.name): place for place, method in enumerate(METHODS)}
    students = list(STUDENTS)
    for (student, name), group in sorted(
        groups.items(), key=lambda item: (students.index(item[0][0]), order.get(item[0], len(order)))
    ):
        values = [run["accuracy"] for run in sorted(group, key=lambda run: run["seed"])]
        mean = float(np.mean(values))
        low, high = wilson(round(mean * rows), rows)
        cells = (
            student, name, ", ".join(f"{value:.2%}"[:-1] for value in values), f"{mean:.2%}"[:-1],
            f"{np.std(values, ddof=1) * 100:.2f}" if len(values) > 1 else "-",
            f"{low * 100:.1f} to {high * 100:.1f}",
            "" if name == LABELS else seeds.against(state.data.task, results, group, groups.get((student, LABELS), [])),
            f"{mean / teacher:.1%}", f"{group[0]['parameters'] / 1e6:.2f} M", f"{times[student]:.2f}",
            f"{np.median([run['seconds'] for run in group]):.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
