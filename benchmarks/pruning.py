"""Pruning to the same speed in several ways: what is left of the accuracy?

    python benchmarks/pruning.py --train sst2/train.tsv --test sst2/dev.tsv --teacher minilm-sst2

The student starts as the teacher's copy. For each speedup (ONNX Runtime fp32, one thread, batch 1) it loses heads
only, units only, layers only, the same share of heads and units in every layer (``uniform``, as TextPruner does), or
what `prune=[budget]` chooses; each once without any training (``recovery 0``) and once with the same number of
recovery steps, the teacher teaching. How many heads, units or layers go is read off the same latency table;
where even all that may go is too few, all of it goes, and the table shows what that gives. With
``--textpruner-python`` TextPruner prunes too, in its own environment, to the shape of ``uniform``, untrained; its speed
is that of the shape. torch-pruning's example for BERT is run untrained too, at the ratio that divides the
multiplications by the wanted speedup. Speeds are measured last, each target's students and the one before, alternately:
on the test rows at their real lengths, and on one row of their median length, which is what the table predicts. What is
done is kept in ``--results``, one line per run, with the answers to the test rows beside it: the same command resumes
after an interruption, and `uniform` is compared with `budget` over seeds and rows. Prints a Markdown table and, last,
one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pruning_torchpruning
import seeds

from compress.data import Files
from compress.distill.losses import AttentionScores, Embeddings, HardLabels, HiddenStates, SoftTargets
from compress.distill.stage import Distill, DistillationRecovery
from compress.families.forms.uneven import shrink
from compress.machine import describe, versions
from compress.models.evaluate import predict_rows
from compress.models.loading import load_config, load_model, load_tokenizer
from compress.models.outputs import parameters
from compress.models.tokens import Tokens, tokenize
from compress.onnx.folder import MODEL, with_tokenizer
from compress.onnx.graph import input_names, write_onnx
from compress.pipeline.model import Model
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.prune.budget import Budget
from compress.prune.costs import Costs, shape_of
from compress.prune.heads import PruneHeads
from compress.prune.latency_table import row_of
from compress.prune.layers import PruneLayers
from compress.prune.neurons import PruneNeurons
from compress.prune.rounds import Scope
from compress.prune.speeds import latency_costs
from compress.runtimes.registry import load_session
from compress.runtimes.rows import model_inputs
from compress.runtimes.timing import quiet_rows, quiet_turns, time_in_turns
from compress.student.bert import ALL, Bert
from compress.tasks.base import Array
from compress.tasks.statistics import wilson
from compress.teachers.model import FineTune, Teacher
from compress.telling import say

WIDTHS = 16  # of the latency table
ARMS = ("heads", "neurons", "layers", "uniform", "budget")
TEXTPRUNER, TORCH_PRUNING = "TextPruner", "torch-pruning's example"
WORKER = Path(__file__).with_name("pruning_textpruner.py")


def main() -> None:
    """Prune and train what is not done yet, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="label<TAB>text rows")
    parser.add_argument("--test", required=True, help="rows that are measured")
    parser.add_argument("--teacher", required=True, help="a folder with a head for these labels")
    parser.add_argument("--rows", type=int, default=4_000, help="training rows, a stratified sample")
    parser.add_argument("--epochs", type=float, default=2, help="of recovery, over these rows, for every arm")
    parser.add_argument("--steps", type=int, default=1, help="rounds of pruning that share the recovery")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--speedups", type=float, nargs="+", default=[1.5, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--results", type=Path, default=Path("runs/pruning.jsonl"))
    parser.add_argument("--cache", default="runs/.cache")
    parser.add_argument(
        "--textpruner-python", type=Path, help="of an environment that has TextPruner; left out without"
    )
    parser.add_argument("--table", action="store_true", help="prune nothing; print what is done")
    given = parser.parse_args()

    source = Files(train=given.train, validation=given.test, train_rows=given.rows, validation_rows=100)
    data = source.load("auto", seed=13)
    state = State.begin(data=data, workshop=Workshop(Path(given.cache)), seed=13)
    state = Bert(layers=ALL)(Teacher(model=given.teacher, fine_tune=FineTune.never)(state))
    losses = {"soft": SoftTargets(), "hard": HardLabels(), "hidden": HiddenStates(), "embeddings": Embeddings(),
              "attention": AttentionScores(weight=0.1)}  # fmt: skip
    state = replace(
        state, recovery=DistillationRecovery(Distill(losses=losses, learning_rate=given.learning_rate, keep_best=False))
    )
    start = accuracy(answers(state.given_student, state), state)
    about = {"rows": given.rows, "steps": given.steps, "learning_rate": given.learning_rate}
    if not given.table:
        length = int(np.median(test_tokens(state, state.given_student).lengths))
        costs, _, _ = latency_costs(state, state.given_student, 1, WIDTHS, length)
        for seed, epochs, speedup, arm in wanted(given):
            this = {"arm": arm, "speedup": speedup, "epochs": epochs, "seed": seed} | about
            if any(this.items() <= done.items() for done in read(given.results)):
                continue
            if arm == TORCH_PRUNING:
                found = torch_pruning(state, speedup, length)
            elif arm == TEXTPRUNER:
                ratio = share("uniform", speedup, costs, state)
                found = textpruner(given.textpruner_python, state.with_seed(seed), ratio)
            else:
                seeded = state.with_seed(seed)
                found = measure(prune(arm, speedup, seeded, costs, epochs, given.steps, length), given.results, this)
            keep(given.results, this | found)
            say(f"{this}: {found['accuracy']:.4f}")
        for seed, speedup in itertools.product(given.seeds, given.speedups):
            this = {"times_of": list(given.arms), "speedup": speedup, "seed": seed} | about
            if any(this.items() <= done.items() for done in read(given.results)):
                continue
            of = about | {"speedup": speedup, "seed": seed}
            runs = [run for run in read(given.results) if of.items() <= run.items() and run.get("arm") in given.arms]
            shapes = {run["arm"]: run["shape"] for run in runs}
            found = times(shapes, state, costs, speedup, length, foreign=seed == given.seeds[0])
            keep(given.results, this | found)
            say(f"{this}: {found}")
    known = [run for run in read(given.results) if about.items() <= run.items() and run["seed"] in given.seeds]
    runs = [run for run in known if run.get("epochs") in (0, given.epochs)]
    timed = [run for run in known if "times_of" in run]
    print(f"The student before: {start:.2%}, {len(data.test):,} test rows.\n")
    print(table(runs, timed, start, len(data.test)))
    print(f"\nbudget less uniform, points over seeds and rows:\n{beside_uniform(runs, state, given.results)}")
    files = {name: Path(getattr(given, name)).name for name in ("train", "test", "teacher")}
    facts = {"accuracy_before": start, "machine": describe(1), "versions": versions()}
    print(json.dumps({**files, **about, **facts, "runs": runs, "times": timed}))


def wanted(given: argparse.Namespace) -> Iterator[tuple[int, float, float, str]]:
    """Yield what was asked for: (seed, epochs of recovery, speedup, arm)."""
    for seed in given.seeds:
        for epochs in dict.fromkeys((0.0, given.epochs)):
            for speedup in given.speedups:
                for arm in given.arms:
                    yield seed, epochs, speedup, arm
                if not epochs and seed == given.seeds[0]:
                    yield seed, epochs, speedup, TORCH_PRUNING  # by weights alone: no seed changes it
                if given.textpruner_python and not epochs:
                    yield seed, epochs, speedup, TEXTPRUNER


def read(path: Path) -> list[dict[str, Any]]:
    """Return what is done."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, line: Mapping[str, Any]) -> None:
    """Add what is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def prune(
    arm: str, speedup: float, state: State, costs: Costs, epochs: float, steps: int, tokens: int
) -> State:  # fmt: skip
    """Return the state with the pruned student."""
    if arm == "budget":
        stages: list[Stage] = [
            Budget(speedup=speedup, tokens=tokens, widths=WIDTHS, recovery_epochs=epochs, rounds=steps)
        ]
    else:
        ratio = share(arm, speedup, costs, state)
        common: dict[str, Any] = {"ratio": ratio, "rounds": steps, "recovery_epochs": epochs}
        evenly = common | {"scope": Scope.layer}
        stages = {
            "heads": [PruneHeads(**common)],
            "neurons": [PruneNeurons(**common)],
            "layers": [PruneLayers(**common)],
            "uniform": [PruneHeads(**evenly | {"recovery_epochs": 0}), PruneNeurons(**evenly)],
        }[arm]
    for stage in stages:
        state = stage(state)
    return state


def share(arm: str, speedup: float, costs: Costs, state: State) -> float:
    """Return the least share that must go for a speedup, by the table; the largest possible where none suffices."""
    shape = shape_of(load_config(state.given_student.folder))
    layers, heads, width = len(shape), shape[0][0], shape[0][1]

    def time(heads_left: float, width_left: float, layers_left: int = layers) -> float:
        return predicted(costs, [(heads_left, width_left)] * layers_left)

    after: Mapping[str, Callable[[float], float]] = {
        "heads": lambda kept: time(kept * heads, width),
        "neurons": lambda kept: time(heads, kept * width),
        "layers": lambda kept: time(heads, width, round(kept * layers)),
        "uniform": lambda kept: time(kept * heads, kept * width),
    }
    parts = {"heads": layers * heads, "neurons": layers * width, "layers": layers, "uniform": width}[arm]
    most = {"heads": layers * (heads - 1), "neurons": layers * (width - 1), "layers": layers - 1, "uniform": width - 1}
    goal = time(heads, width) / speedup
    return next((gone / parts for gone in range(most[arm]) if after[arm](1 - gone / parts) <= goal), most[arm] / parts)


def predicted(costs: Costs, shape: Sequence[tuple[float, float]]) -> float:
    """Return the milliseconds of a shape by the table; between its sizes on a line."""
    known, added = zip(*costs.neurons, strict=True)
    heads, units = np.array(shape).T
    more = np.interp(heads, np.arange(1, len(costs.heads) + 1), costs.heads) + np.interp(units, known, added)
    return costs.rest + len(shape) * costs.layer + float(more.sum())


def measure(pruned: State, results: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return accuracy, size and shape of the pruned student; keep its answers beside ``results``."""
    student = pruned.given_student
    logits = answers(student, pruned)
    return {
        "accuracy": accuracy(logits, pruned),
        "answers": seeds.keep(results, about, logits, pruned.data.test.known_labels),
        "parameters": parameters(load_model(student.folder)),
        "shape": shape_of(load_config(student.folder)),
    }


def textpruner(python: Path, state: State, ratio: float) -> dict[str, Any]:
    """Return accuracy, size and shape of the student that TextPruner prunes to a share of each layer's heads and units.

    The rows that it measures importance on are as many as `compress.prune` takes, drawn with the state's seed.
    """
    student, train, test = state.given_student, state.data.train, state.data.test
    heads, units = shape_of(load_config(student.folder))[0]
    rows = np.random.default_rng(state.seed).permutation(len(train))[: PruneHeads.rows].tolist()
    job = {
        "model": str(student.folder.resolve()), "seed": state.seed, "max_tokens": 128, "iterations": 4,
        "heads": max(1, round((1 - ratio) * heads)), "units": max(1, round((1 - ratio) * units)),
        "texts": [train.texts[row] for row in rows], "labels": train.known_labels[rows].tolist(),
        "test_texts": list(test.texts), "test_labels": test.known_labels.tolist(),
    }  # fmt: skip
    printed = subprocess.run(
        [str(python), str(WORKER)], input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def torch_pruning(state: State, speedup: float, tokens: int) -> dict[str, Any]:
    """Return accuracy, size and shape of the student as torch-pruning's example prunes it."""
    model = pruning_torchpruning.to_macs(load_model(state.given_student.folder), speedup, tokens)
    logits = predict_rows(model, test_tokens(state, state.given_student))
    return {
        "accuracy": accuracy(logits, state),
        "parameters": parameters(model),
        "shape": pruning_torchpruning.shape(model),
    }


def test_tokens(state: State, model: Model) -> Tokens:
    """Return the test rows as a model's tokens."""
    tokenizer = load_tokenizer(model.folder)
    return tokenize(state.data.test, tokenizer, tokenizer.model_max_length)


def answers(model: Model, state: State) -> Array:
    """Return a model's logits on the test rows (rows, classes)."""
    return predict_rows(load_model(model.folder), test_tokens(state, model))


def accuracy(logits: Array, state: State) -> float:
    """Return the share of test rows that are labelled rightly."""
    return state.data.task.metrics(logits, state.data.test.known_labels)["accuracy"]


def beside_uniform(runs: list[dict[str, Any]], state: State, results: Path) -> str:
    """Return a line for each speedup and recovery: the budget's shape beside the same share everywhere."""
    arms: dict[tuple[float, float], dict[str, list[dict[str, Any]]]] = {}
    for run in runs:
        arms.setdefault((run["speedup"], run["epochs"]), {}).setdefault(run["arm"], []).append(run)
    return "\n".join(
        f"{speedup:g}×, recovery {epochs:g}: "
        + seeds.against(state.data.task, results, found.get("budget", []), found.get("uniform", []))
        for (speedup, epochs), found in sorted(arms.items())
    )


def times(
    shapes: Mapping[str, Any], state: State, costs: Costs, speedup: float, length: int, *, foreign: bool
) -> dict[str, dict[str, float]]:
    """Return by arm how many times as fast as before its shape is, batch 1, all called alternately.

    ``real_rows``: the median ratio on test rows at their real lengths, each one's fastest call of five. ``median_row``:
    on a row of ``length`` tokens. ``predicted``: by the table, of that row. ``foreign`` adds torch-pruning's example.
    """
    before = load_model(state.given_student.folder)
    tokenizer = load_tokenizer(state.given_student.folder)
    models = {"before": before}
    for arm, shape in shapes.items():  # which heads, units and layers are left changes nothing
        heads, units = ([list(range(layer[part])) for layer in shape] for part in (0, 1))
        models[arm] = shrink(shrink(before, layers=list(range(len(shape)))), heads=heads, units=units)
    if foreign:
        models[TORCH_PRUNING] = pruning_torchpruning.to_macs(before, speedup, length)
    with tempfile.TemporaryDirectory() as aside:
        runners = {}
        for name, model in models.items():
            folder = Path(aside) / name
            folder.mkdir()
            write_onnx(model, input_names(tokenizer), folder / MODEL)
            with_tokenizer(state.given_student.folder, folder, pairs=state.data.pairs)
            runners[name] = load_session(folder)
    tokens = test_tokens(state, state.given_student)
    rows = np.linspace(0, len(tokens) - 1, min(200, len(tokens))).round().astype(int).tolist()
    feeds = [model_inputs(tokens, [row]) for row in rows]
    real = quiet_rows(time_in_turns(runners, dict.fromkeys(runners, feeds), 5 * len(rows), 120.0, None), len(rows))
    single = [row_of(input_names(tokenizer), length, len(tokenizer))]
    median = quiet_turns(time_in_turns(runners, dict.fromkeys(runners, single), 200, 60.0, None))
    whole = predicted(costs, shape_of(before.config))
    return {
        "real_rows": {arm: float(np.median(real["before"] / real[arm])) for arm in runners if arm != "before"},
        "median_row": {arm: median["before"] / median[arm] for arm in runners if arm != "before"},
        "predicted": {arm: whole / predicted(costs, shape) for arm, shape in shapes.items()},
    }


def table(runs: list[dict[str, Any]], timed: list[dict[str, Any]], start: float, rows: int) -> str:
    """Return the Markdown table: at each speed the arms side by side, first without training, then with."""
    head = ("target", "recovery epochs", "pruned", "accuracy by seed", "mean", "95 % interval, rows", "kept",
            "speed, real rows", "median row", "predicted", "parameters", "heads", "units", "layers")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    groups: dict[tuple[float, float, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["speedup"], run["epochs"], run["arm"]), []).append(run)
    for (speedup, epochs, arm), group in sorted(
        groups.items(), key=lambda item: (*item[0][:2], (*ARMS, TEXTPRUNER, TORCH_PRUNING).index(item[0][2]))
    ):
        values = [run["accuracy"] for run in sorted(group, key=lambda run: run["seed"])]
        mean = float(np.mean(values))
        low, high = wilson(round(mean * rows), rows)
        at = [run for run in timed if run["speedup"] == speedup]
        speeds = {
            what: float(np.median([run[what][arm] for run in at if arm in run[what]]))
            for what in ("real_rows", "median_row", "predicted")
            if any(arm in run[what] for run in at)
        }
        fast = speeds.get("real_rows")
        shapes = [run["shape"] for run in group]
        cells = (
            f"{speedup:g}×", f"{epochs:g}", arm, ", ".join(f"{value:.2%}"[:-1] for value in values), f"{mean:.2%}"[:-1],
            f"{low * 100:.1f} to {high * 100:.1f}", f"{mean / start:.1%}",
            "as uniform" if arm == TEXTPRUNER else "" if fast is None else f"{fast:.2f}×",
            *(f"{speeds[what]:.2f}×" if what in speeds else "" for what in ("median_row", "predicted")),
            f"{np.mean([run['parameters'] for run in group]) / 1e6:.2f} M",
            *(f"{np.mean([sum(layer[part] for layer in shape) for shape in shapes]):,.0f}" for part in (0, 1)),
            f"{np.mean([len(shape) for shape in shapes]):.1f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
