"""A teacher, the student that it teaches, the same student by labels alone, and int8: over seeds, with intervals.

What `tasks.py` and `models.py` share. The rows and the teacher are the same for all seeds. What is done is kept in a
file, one line per model and seed, with the answers to the test rows beside it: the same command resumes, and models are
compared over seeds and rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import seeds

from compress.benchmark.baselines import tfidf
from compress.benchmark.latency import real_rows
from compress.benchmark.scores import ScoredRows
from compress.benchmark.stage import WEIGHTS
from compress.benchmark.way import Way
from compress.distill.stage import labels_only
from compress.export.onnx import Onnx
from compress.files import size_mib
from compress.pipeline.artifact import Artifact
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.int8 import DynamicInt8
from compress.run.recipe import Recipe
from compress.runtimes.devices import CPU
from compress.runtimes.pytorch import torch_threads
from compress.runtimes.registry import RUNTIMES
from compress.tasks.base import Array, Task
from compress.tasks.paired import Difference

SEED = 13  # of the rows and of the teacher
TEACHER, CHEAP, DISTILLED, INT8, LABELS = "teacher", "cheap baseline", "distilled", "distilled, int8", "labels alone"
MODELS = (TEACHER, CHEAP, DISTILLED, INT8, LABELS)
KEPT, LOST, LOST_OF_A_TYPE = 0.97, 0.005, 0.01  # the aims: at least this share, at most these drops
ENOUGH = 50  # test spans, or rows with a label, from which its recall is looked at

Run = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """A recipe whose student is trained with several seeds, by its losses and by labels alone."""

    recipe: Recipe
    about: Run  # what tells its results from others
    seeds: Sequence[int]
    results: Path

    @cached_property
    def taught(self) -> State:
        """The state with the teacher, which is fine-tuned here if it is not in the cache."""
        data = self.recipe.data.load(self.recipe.task, SEED)
        workshop = Workshop(self.recipe.cache_folder)
        return self.recipe.teacher(State.begin(data=data, workshop=workshop, seed=SEED))

    @property
    def task(self) -> Task:
        """The task, with outputs numbered as the teacher's."""
        return self.taught.data.task

    @property
    def runs(self) -> list[Run]:
        """What is done of this work."""
        lines = self.results.read_text().splitlines() if self.results.exists() else []
        found = [json.loads(line) for line in lines]
        wanted = (None, *self.seeds)
        return [run for run in found if self.about.items() <= run.items() and run["seed"] in wanted]

    def carry_out(self) -> None:
        """Do what is not done yet."""
        done = {(run["model"], run["seed"]) for run in self.runs}
        if (CHEAP, None) not in done:
            cheap = tfidf(self.taught.data)
            self._keep(CHEAP, None, cheap.logits, {"kind": cheap.figures.kind})
        if (TEACHER, None) not in done and self.taught.teacher is not None:  # a file of answers has no weights
            taught = self.taught
            self._keep_model(TEACHER, None, taught, taught.given_teacher, taught.records[-1].seconds)
        for seed in self.seeds:
            start = self.recipe.student(self.taught.with_seed(seed))
            if not {(DISTILLED, seed), (INT8, seed)} <= done:
                state = start
                for prepare in self.recipe.prepare.values():
                    state = prepare(state)
                state = trained = self.recipe.distill(state)
                for prune in self.recipe.prune.values():
                    state = prune(state)
                seconds = trained.records[-1].seconds
                self._keep_model(DISTILLED, seed, state, state.given_student, seconds)
                self._keep_artifact(INT8, seed, state, DynamicInt8()(state).artifacts[-1])
            if (LABELS, seed) not in done:
                state = labels_only(self.recipe.distill, self.recipe.distill.epochs)(start)
                self._keep_model(LABELS, seed, state, state.given_student, state.records[-1].seconds)

    def _keep_model(self, name: str, seed: int | None, state: State, model: Model, seconds: float) -> None:
        more: Run = {"folder": str(model.folder), "key": model.key, "seconds": seconds}
        more |= {"size_mib": size_mib(model.folder, WEIGHTS)}
        self._keep(name, seed, ScoredRows(state).logits(model), more)

    def _keep_artifact(self, name: str, seed: int, state: State, artifact: Artifact) -> None:
        more = {"folder": str(artifact.folder), "key": artifact.key, "size_mib": size_mib(artifact.folder, WEIGHTS)}
        with torch_threads(1):
            self._keep(name, seed, ScoredRows(state).of_way(_way(name, artifact), CPU, 1), more)

    def _keep(self, name: str, seed: int | None, logits: Array, more: Run) -> None:
        """Append a line to the results, and print it in a few words."""
        labels, about = self.taught.data.test.known_labels, {**self.about, "model": name, "seed": seed}
        metrics = self.task.metrics(logits, labels)
        classes = [[part.label, part.rows, part.recall] for part in self.task.by_class(logits, labels)]
        answers = seeds.keep(self.results, about, logits, labels)
        with self.results.open("a") as file:
            file.write(json.dumps({**about, **more, "metrics": metrics, "classes": classes, "answers": answers}) + "\n")
        told = f"{self.about['set']}, {name}" + ("" if seed is None else f", seed {seed}")
        print(f"{told}: {self.task.main_metric} {100 * metrics[self.task.main_metric]:.2f}", flush=True)

    @cached_property
    def milliseconds(self) -> dict[str, float]:
        """The median of a test row at its real length, one thread, batch 1, of the first seed's models in turn."""
        first = {run["model"]: run for run in reversed(self.runs) if "folder" in run}
        if not {TEACHER, DISTILLED, INT8} <= first.keys():
            return {}
        student = replace(self.taught, student=Model(Path(first[DISTILLED]["folder"]), first[DISTILLED]["key"]))
        teacher = replace(self.taught, student=self.taught.given_teacher)
        pytorch, int8 = RUNTIMES["pytorch"], first[INT8]
        folder = self.taught.given_teacher.folder
        ways = [
            Way(subject=TEACHER, runtime=pytorch, folder=folder, key=self.taught.given_teacher.key, precision="fp32",
                variant=pytorch.variants(folder, CPU)[0], in_grid=False),
            _way("teacher, ONNX", Onnx()(teacher).artifacts[-1]),
            _way(DISTILLED, Onnx()(student).artifacts[-1]),
            _way(INT8, Artifact(name=INT8, runtime="onnxruntime", precision="int8", folder=Path(int8["folder"]),
                                key=int8["key"], seconds=0.0)),
        ]  # fmt: skip
        scores, test = ScoredRows(self.taught), self.taught.data.test
        columns = [test.texts] if test.pairs is None else [test.texts, test.pairs]
        texts = list(zip(*columns, strict=True))
        with torch_threads(1):
            sessions = {
                way.subject: way.runtime.load(way.folder, CPU, threads=1, variant=way.variant.name) for way in ways
            }
            readers = {way.subject: scores.reader(way.folder) for way in ways}
            found = real_rows(sessions, readers, texts, rows=100, seconds=10.0, threads=1)
        return {name: timings[0]["median_ms"] for name, timings in found.items()}

    # what it says

    def table(self) -> str:
        """Return the Markdown table, the aims and the recall of each type."""
        metric, rows = self.task.main_metric, len(self.taught.data.test)
        head = ("model", f"{metric} by seed", "mean", "kept", "against the teacher", "MiB", "ms", "training s")
        title = f"{self.about['set']}, {self.about['teacher']}: {len(self.taught.data.train):,} training rows"
        lines = ["", f"{title}, {rows:,} test rows", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        of_teacher = self._mean(TEACHER)
        for name in MODELS:
            if runs := self._of(name):
                values = [100 * run["metrics"][metric] for run in runs]
                kept = f"{np.mean(values) / of_teacher:.1f}" if of_teacher else ""
                apart = "" if name == TEACHER else self._against(name, TEACHER)
                seconds = [run["seconds"] for run in runs if "seconds" in run]
                cells = (
                    name, ", ".join(f"{value:.2f}" for value in values), f"{np.mean(values):.2f}", kept, apart,
                    f"{runs[0]['size_mib']:.1f}" if "size_mib" in runs[0] else "",
                    f"{self.milliseconds[name]:.2f}" if name in self.milliseconds else "",
                    f"{np.median(seconds):.0f}" if seconds else "",
                )  # fmt: skip
                lines.append(f"| {' | '.join(cells)} |")
        if onnx := self.milliseconds.get("teacher, ONNX"):
            lines.append(f"\nThe teacher takes {onnx:.2f} ms in ONNX Runtime. Percent and points; 95 % intervals.")
        lines += ["", *self._aims(), *self._types()]
        return "\n".join(lines)

    def _aims(self) -> Iterator[str]:
        """Yield what is known of the aims, each with its interval."""
        of_teacher = self._mean(TEACHER)
        if of_teacher and (found := self._difference(DISTILLED, TEACHER)):
            shares = [100 * (1 + part / of_teacher) for part in (found.value, found.low, found.high)]
            told = f"{shares[0]:.1f} % [{shares[1]:.1f}, {shares[2]:.1f}] of the teacher's {self.task.main_metric}"
            yield f"- Keeps at least {100 * KEPT:.0f} %: {outcome(found, (1 - KEPT) * of_teacher)}; {told}."
        if found := self._difference(INT8, DISTILLED):
            told = f"{seeds.shown(found)} points"
            yield f"- Int8 within {100 * LOST:.1f} points of its own fp32: {outcome(found, LOST)}; {told}."
        if found := self._difference(DISTILLED, LABELS):
            yield f"- Distilled against labels alone: {seeds.shown(found)} points, p = {found.p:.3f}."

    def _types(self) -> Iterator[str]:
        """Yield the mean recall over seeds of every type that the test rows have often enough, and what int8 loses."""
        models = [name for name in (TEACHER, DISTILLED, INT8, LABELS) if self._of(name)]
        first = self._of(models[0])[0]["classes"] if models else []
        places = [place for place, (_, rows, _) in enumerate(first) if rows >= ENOUGH]
        if not places:
            return
        losses = self._losses_by_type()
        yield f"\n| recall of | test spans or rows | {' | '.join(models)} | int8 less fp32, worst seed |"
        yield f"|{'---|' * (len(models) + 3)}"
        for place in places:
            label, rows, _ = first[place]
            recalls = [100 * np.mean([run["classes"][place][2] for run in self._of(name)]) for name in models]
            worst = losses.get(f"recall:{label}")
            told = "" if worst is None else seeds.shown(worst)
            yield f"| {label} | {rows:,} | {' | '.join(f'{recall:.1f}' for recall in recalls)} | {told} |"
        if losses:
            beyond = [name for name, worst in losses.items() if worst.value < -LOST_OF_A_TYPE]
            told = f"more in some seed: {', '.join(beyond)}" if beyond else "in every seed"
            yield f"\n- Int8 within {100 * LOST_OF_A_TYPE:.0f} point of recall for every type: {told}."

    def _losses_by_type(self) -> dict[str, Difference]:
        """Return by type the paired difference of recall, int8 less fp32, in the seed where it is the lowest."""
        worst: dict[str, Difference] = {}
        for ours, theirs in zip(self._of(INT8), self._of(DISTILLED), strict=False):
            if ours["seed"] == theirs["seed"]:
                labels = self.taught.data.test.known_labels
                for found in self.task.guarded(self._answers(ours), self._answers(theirs), labels):
                    worst[found.metric] = min(found, worst.get(found.metric, found), key=lambda part: part.value)
        return worst

    def _of(self, name: str) -> list[Run]:
        return sorted((run for run in self.runs if run["model"] == name), key=lambda run: run["seed"] or 0)

    def _mean(self, name: str) -> float | None:
        values = [run["metrics"][self.task.main_metric] for run in self._of(name)]
        return float(np.mean(values)) if values else None

    def _answers(self, run: Run) -> Array:
        return seeds.answers(self.results, run)

    def _against(self, name: str, other: str) -> str:
        found = self._difference(name, other)
        return "" if found is None else seeds.shown(found)

    def _difference(self, name: str, other: str) -> Difference | None:
        """Compare two models over seeds and rows, of one seed over rows; one without seeds is the same in each."""
        ours, theirs = (self._of(model) for model in (name, other))
        if not ours or not theirs:
            return None
        known = sorted({run["seed"] for run in (*ours, *theirs)} - {None}) or [None]
        sides = [by_seed(runs, known) for runs in (ours, theirs)]
        both = [seed for seed in known if all(seed in side for side in sides)]
        if len(both) > 1:
            return seeds.over_seeds(self.task, self.results, *([side[seed] for seed in both] for side in sides))
        if not both:
            return None
        answers = (self._answers(side[both[0]]) for side in sides)
        return self.task.difference(*answers, self.taught.data.test.known_labels)


def shown(run: Run) -> Run:
    """Return what is printed of a run."""
    return {name: value for name, value in run.items() if name not in ("folder", "key", "answers")}


def by_seed(runs: Sequence[Run], known: Sequence[int | None]) -> dict[int | None, Run]:
    """Return runs by seed; one without a seed stands for each that is ``known``."""
    return {seed: {**run, "seed": seed} for run in runs for seed in (known if run["seed"] is None else [run["seed"]])}


def outcome(found: Difference, drop: float) -> str:
    """Return whether a difference shows that at most ``drop`` is lost."""
    if found.low >= -drop:
        return "shown"
    return "missed" if found.high < -drop else "likely, not shown" if found.value >= -drop else "unlikely"


def _way(subject: str, artifact: Artifact) -> Way:
    runtime = RUNTIMES[artifact.runtime]
    return Way(
        subject=subject, runtime=runtime, folder=artifact.folder, key=artifact.key, precision=artifact.precision,
        variant=runtime.variants(artifact.folder, CPU)[0], in_grid=False,
    )  # fmt: skip
