"""Every task on real rows: teacher, distilled student, the same student by labels alone, int8, speed, recall by type.

    python benchmarks/tasks.py --data FOLDER --task tags                       # 10 to 25 minutes of one core
    python benchmarks/tasks.py --data FOLDER --task spans --rows 3000 --words distill.epochs=3
    python benchmarks/tasks.py --data FOLDER --task tags --table               # train nothing, print what is done

FOLDER holds ``snips``, ``snips_slots``, ``wnut17``, ``squad_small`` and ``stsb``. Each set is trained by its
task's recipe with a student of half the teacher's layers. The rows and the teacher, which is fine-tuned on them, are
the same for all seeds; ``--rows`` bounds the training rows of each set. What is done is kept in ``--results``, one line
per model and seed, with the answers to the test rows beside it: the same command resumes, and models are compared over
seeds and rows. Prints a Markdown table per set, what it says of the aims, and, last, one line of JSON.

Two sets are made of others: ``snips_pairs`` joins two sentences of SNIPS, with both intents, and ``squad_sentences``
ranks the sentences of a paragraph by whether they hold the answer to a question. STS-B makes no set of rankings: 104
of its test texts are scored beside several others, and any order of those has 0.88 of nDCG@10.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import seeds
import several_labels

from compress.benchmark.baselines import tfidf
from compress.benchmark.latency import real_rows
from compress.benchmark.scores import ScoredRows
from compress.benchmark.stage import WEIGHTS
from compress.benchmark.way import Way
from compress.cli.compose import compose
from compress.distill.stage import labels_only
from compress.export.onnx import Onnx
from compress.files import size_mib
from compress.machine import describe, versions
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
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")

Run = dict[str, Any]
Files = tuple[Path, Path | None, Path]  # training, validation, test


@dataclass(frozen=True, kw_only=True)
class Set:
    """Rows of a task, how many of them are used, and the words of `compress run` that suit so few."""

    task: str
    files: Callable[[Path, Path], Files]  # of the folder of data and a folder to write to
    rows: int
    words: tuple[str, ...]
    test_rows: int | None = None


def in_folder(name: str, train: str, validation: str | None, test: str) -> Callable[[Path, Path], Files]:
    """Return what finds the files of a set in the folder of data."""

    def found(data: Path, made: Path) -> Files:
        return data / name / train, None if validation is None else data / name / validation, data / name / test

    return found


def pairs_of_snips(data: Path, made: Path) -> Files:
    """Return files of two sentences joined, with the intents of both."""
    counts = {"train": 6_500, "dev": 350, "test": 700}
    return _written(made, {
        name: lambda name=name, rows=rows: several_labels.joined(str(data / "snips" / f"{name}.tsv"), rows, SEED)
        for name, rows in counts.items()
    })  # fmt: skip


def sentences_of_squad(data: Path, made: Path) -> Files:
    """Return files of questions and the sentences of their paragraphs; the last four articles are for validation."""

    def articles(name: str) -> list[Any]:
        read: list[Any] = json.loads((data / "squad_small" / name).read_text(encoding="utf-8"))["data"]
        return read

    return _written(made, {
        "train": lambda: answer_sentences(articles("train.json")[:-4]),
        "dev": lambda: answer_sentences(articles("train.json")[-4:]),
        "test": lambda: answer_sentences(articles("dev.json")),
    })  # fmt: skip


def answer_sentences(articles: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each sentence of a question's paragraph: 1 where it holds an answer, else 0.

    Left out are questions of which no sentence, or every one, holds an answer.
    """
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        context = paragraph["context"]
        cuts = [0, *(match.end() for match in SENTENCE_END.finditer(context)), len(context)]
        sentences = list(pairwise(cuts))
        for asked in paragraph["qas"]:
            spans = [(answer["answer_start"], len(answer["text"])) for answer in asked["answers"]]
            holds = [
                any(first <= start and start + length <= last for start, length in spans) for first, last in sentences
            ]
            if any(holds) and not all(holds):
                for (first, last), relevant in zip(sentences, holds, strict=True):
                    yield {
                        "group": asked["id"], "query": asked["question"], "candidate": context[first:last].strip(),
                        "relevance": int(relevant),
                    }  # fmt: skip


def _written(folder: Path, splits: Mapping[str, Callable[[], Iterator[Any]]]) -> Files:
    """Return files of rows, written if they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.jsonl" for name in splits}
    for name, rows in splits.items():
        if not paths[name].exists():
            partial = paths[name].with_suffix(".partial")
            with partial.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
            partial.rename(paths[name])
    train, validation, test = paths.values()
    return train, validation, test


TAGS = ("teacher.batch_size=16", "teacher.least_steps=0", "teacher.epochs=8", "teacher.learning_rate=2e-4",
        "distill.batch_size=16", "distill.epochs=5", "data.validation_rows=200")  # fmt: skip
SETS: Mapping[str, Set] = {
    "snips_slots": Set(
        task="tags", files=in_folder("snips_slots", "train.tsv", "dev.tsv", "test.tsv"), rows=900, words=TAGS
    ),
    "wnut17": Set(task="tags", files=in_folder("wnut17", "train.tsv", "dev.tsv", "test.tsv"), rows=450, words=TAGS),
    "snips_pairs": Set(
        task="multi_label", files=pairs_of_snips, rows=1_200,
        words=("teacher.least_steps=0", "teacher.epochs=5", "distill.epochs=5", "distill.learning_rate=2e-4"),
    ),
    "squad_small": Set(
        task="spans", files=in_folder("squad_small", "train.json", None, "dev.json"), rows=300, test_rows=300,
        words=("teacher.batch_size=8", "teacher.least_steps=0", "teacher.epochs=2", "distill.batch_size=8",
               "distill.epochs=2"),
    ),
    "stsb": Set(
        task="vectors", files=in_folder("stsb", "train.tsv", "dev.tsv", "test.tsv"), rows=1_000,
        words=("teacher.least_steps=0", "teacher.epochs=3", "distill.epochs=5", "data.validation_rows=300"),
    ),
    "squad_sentences": Set(
        task="ranking", files=sentences_of_squad, rows=1_000, test_rows=1_000,
        words=("teacher.least_steps=0", "teacher.epochs=3", "distill.epochs=3", "data.validation_rows=300"),
    ),
}  # fmt: skip


def main() -> None:
    """Train what is not trained yet, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    tasks = sorted({part.task for part in SETS.values()})
    parser.add_argument("--task", nargs="+", choices=tasks, default=tasks)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="only these of them")
    parser.add_argument("--rows", type=int, help="training rows of each set; default: 10 to 25 minutes for a task")
    parser.add_argument("--test-rows", type=int, help="default: all; of spans and rankings some")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--teacher", default="minilm", help="a folder, a hub id or minilm, fine-tuned on each set")
    parser.add_argument("--words", nargs="+", default=[], metavar="WORD", help="more words of `compress run`")
    parser.add_argument("--results", type=Path, default=Path("runs/tasks.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("runs/.cache"))
    parser.add_argument("--table", action="store_true", help="train nothing; print what is done")
    given = parser.parse_args()

    found = []
    for name in given.sets:
        if SETS[name].task in given.task:
            work = Work.of(name, given)
            if not given.table:
                work.carry_out()
            if work.runs:
                print(work.table(), flush=True)
                found.append({**work.about, "ms": work.milliseconds, "runs": [_shown(run) for run in work.runs]})
    print(json.dumps({"sets": found, "machine": describe(1), "versions": versions()}))


def _shown(run: Run) -> Run:
    return {name: value for name, value in run.items() if name not in ("folder", "key", "answers")}


@dataclass(frozen=True)
class Work:
    """What is to be done with one set."""

    recipe: Recipe
    about: Run  # what tells its results from others
    seeds: Sequence[int]
    results: Path

    @classmethod
    def of(cls, name: str, given: argparse.Namespace) -> Work:
        """Return the work of a set as the command line asks for it."""
        part = SETS[name]
        rows, test_rows = given.rows or part.rows, given.test_rows or part.test_rows
        train, validation, test = part.files(given.data, given.cache / "tasks" / name)
        words = [
            f"recipe={part.task}", "data=files", f"data.train={train}", f"data.test={test}", f"data.train_rows={rows}",
            *([] if validation is None else [f"data.validation={validation}"]),
            *([] if test_rows is None else [f"data.test_rows={test_rows}"]),
            f"teacher.model={given.teacher}", "teacher.fine_tune=always", f"cache={given.cache}",
            *part.words, *given.words,
        ]  # fmt: skip
        settings = [*part.words, *given.words]
        about = {"set": name, "rows": rows, "test_rows": test_rows, "teacher": given.teacher, "words": settings}
        return cls(compose(words), about, given.seeds, given.results)

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
        if (TEACHER, None) not in done:
            self._keep_model(TEACHER, None, self.taught, self.taught.given_teacher)
        for seed in self.seeds:
            start = self.recipe.student(self.taught.with_seed(seed))
            if not {(DISTILLED, seed), (INT8, seed)} <= done:
                state = self.recipe.distill(start)
                self._keep_model(DISTILLED, seed, state, state.given_student)
                self._keep_artifact(INT8, seed, state, DynamicInt8()(state).artifacts[-1])
            if (LABELS, seed) not in done:
                state = labels_only(self.recipe.distill, self.recipe.distill.epochs)(start)
                self._keep_model(LABELS, seed, state, state.given_student)

    def _keep_model(self, name: str, seed: int | None, state: State, model: Model) -> None:
        more = {"folder": str(model.folder), "key": model.key, "seconds": state.records[-1].seconds}
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
            yield f"- Keeps at least {100 * KEPT:.0f} %: {_outcome(found, (1 - KEPT) * of_teacher)}; {told}."
        if found := self._difference(INT8, DISTILLED):
            told = f"{seeds.shown(found)} points"
            yield f"- Int8 within {100 * LOST:.1f} points of its own fp32: {_outcome(found, LOST)}; {told}."
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
        sides = [_by_seed(runs, known) for runs in (ours, theirs)]
        both = [seed for seed in known if all(seed in side for side in sides)]
        if len(both) > 1:
            return seeds.over_seeds(self.task, self.results, *([side[seed] for seed in both] for side in sides))
        if not both:
            return None
        answers = (self._answers(side[both[0]]) for side in sides)
        return self.task.difference(*answers, self.taught.data.test.known_labels)


def _by_seed(runs: Sequence[Run], known: Sequence[int | None]) -> dict[int | None, Run]:
    """Return runs by seed; one without a seed stands for each that is ``known``."""
    return {seed: {**run, "seed": seed} for run in runs for seed in (known if run["seed"] is None else [run["seed"]])}


def _outcome(found: Difference, drop: float) -> str:
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


if __name__ == "__main__":
    main()
