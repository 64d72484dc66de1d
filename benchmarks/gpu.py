"""How fast, and how true to fp32, a teacher and its student run on a GPU, in every way that the package knows.

    python benchmarks/gpu.py --teacher runs/quickstart/a/stages/00-teacher --student runs/quickstart/a/student \\
        --int8 runs/quickstart/a/artifacts/tensorrt-int8 --texts reviews.txt

Each cell is one way of running a model under one condition: real rows one at a time first, then the grid of batches
and lengths. It is timed in turn with the teacher in eager fp32. The most informative cells come first, none is
started once the time is up, and the results (.json, and .md as a table) are written after every cell.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx

from compress.benchmark.latency import Reader, grid, real_rows
from compress.data.dataset import Split
from compress.errors import CompressError, in_one_line
from compress.files import write_json, write_text
from compress.machine import describe, versions
from compress.models.loading import load_config, load_model, load_tokenizer
from compress.models.positions import longest_row
from compress.models.tokens import tokenize
from compress.onnx.folder import MODEL, with_tokenizer
from compress.onnx.graph import input_names, write_onnx
from compress.onnx.half import in_half
from compress.onnx.storage import save_graph
from compress.runtimes.base import Runtime, Session
from compress.runtimes.devices import CUDA, Device, chosen_devices
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.runtimes.pytorch import COMPILED, PyTorch, torch_threads
from compress.runtimes.registry import RUNTIMES
from compress.runtimes.rows import one_by_one
from compress.runtimes.tensorrt import ENGINE, TensorRtRuntime
from compress.runtimes.tensorrt_bindings import build, targets
from compress.tasks.base import Array, Task
from compress.tasks.registry import task_of_config

FIRST = ("SDPA fp16", COMPILED)  # of the student's variants, those that are measured before all others
BATCHES, TOKENS = (1, 32, 8), (128, 32)
REAL = "real rows"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model in a folder, and the texts as it reads them."""

    name: str
    folder: Path
    task: Task
    reader: Reader
    longest: int  # tokens

    @classmethod
    def of(cls, name: str, folder: Path, texts: Sequence[str]) -> Subject:
        """Return a saved model; raises CompressError."""
        tokenizer, config = load_tokenizer(folder), load_config(folder)
        task, longest = task_of_config(config), min(tokenizer.model_max_length, longest_row(config))
        split = Split(tuple(texts), by_token=type(task) if task.by_token else None)
        return cls(
            name=name, folder=folder, task=task, reader=Reader(tokenizer, tokenize(split, tokenizer, longest)),
            longest=longest,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of running a model. Its folder is made when the first cell needs it."""

    subject: Subject
    name: str
    runtime: Runtime
    folder: Callable[[], Path]
    variant: str = ""

    @property
    def label(self) -> str:
        """What tells it from all others."""
        return f"{self.subject.name}, {self.name}"


class Folders:
    """The graphs and engines of a model, made by the package's own writers, once."""

    def __init__(self, subject: Subject, scratch: Path, largest: tuple[int, int]) -> None:
        self.subject, self.scratch, self.largest = subject, scratch, largest  # batch and tokens that engines take
        self.fp32, self.fp16 = cache(self._fp32), cache(self._fp16)

    def _fp32(self) -> Path:
        folder = self._new("onnx-fp32", self.subject.folder)
        write_onnx(load_model(self.subject.folder), input_names(self.subject.reader.tokenizer), folder / MODEL)
        return folder

    def _fp16(self) -> Path:
        folder = self._new("onnx-fp16", self.subject.folder)
        save_graph(in_half(onnx.load(self.fp32() / MODEL)), folder / MODEL)
        return folder

    def engine(self, graph: Callable[[], Path], name: str) -> Path:
        """Return a folder with an engine of a graph for the GPU that is here; raises CannotBuild."""
        (target,) = targets([])
        source, folder = graph(), self._new(name, self.subject.folder)
        batch, tokens = self.largest
        sizes = [(1, 2), (min(8, batch), min(128, tokens)), (batch, tokens)]
        shapes = dict.fromkeys(input_names(self.subject.reader.tokenizer), sizes)
        (folder / f"{target.name}{ENGINE}").write_bytes(build(source / MODEL, shapes, target, None).engine)
        return folder

    def _new(self, name: str, source: Path) -> Path:
        folder = self.scratch / f"{self.subject.name}-{name}"
        folder.mkdir(exist_ok=True)  # where making it failed before, it fails again with the same reason
        with_tokenizer(source, folder, pairs=False)
        return folder


def methods(
    teacher: Subject, student: Subject, int8: Path | None, device: Device, folders: Folders
) -> Iterator[Method]:
    """Yield what is measured, the most informative first; the first of all is what the others compare with."""
    pytorch, onnx, tensorrt = (RUNTIMES[name] for name in (PyTorch.name, OnnxRuntime.name, TensorRtRuntime.name))

    def plain(subject: Subject) -> list[Method]:
        return [
            Method(
                subject=subject, name=f"PyTorch {variant.name or variant.precision}", runtime=pytorch,
                folder=lambda: subject.folder, variant=variant.name,
            )
            for variant in pytorch.variants(subject.folder, device)
        ]  # fmt: skip

    reference, *others = plain(teacher)
    own = sorted(plain(student), key=lambda m: FIRST.index(m.variant) if m.variant in FIRST else len(FIRST))
    early = [method for method in own if method.variant in FIRST]
    yield from (reference, *early)
    of_student = partial(Method, subject=student)
    yield of_student(name="ONNX Runtime fp16", runtime=onnx, folder=folders.fp16)
    yield of_student(name="ONNX Runtime fp32", runtime=onnx, folder=folders.fp32)
    engine = partial(folders.engine, folders.fp16, "tensorrt-fp16")
    yield of_student(name="TensorRT fp16", runtime=tensorrt, folder=cache(engine))
    if int8 is not None:
        engine = partial(folders.engine, lambda: int8, "tensorrt-int8")
        yield of_student(name="TensorRT int8", runtime=tensorrt, folder=cache(engine))
    yield from (*own[len(early) :], *others)


@dataclass
class Results:
    """What was measured, written to .json and .md after every cell."""

    output: Path  # without a suffix
    about: Mapping[str, Any]
    cells: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, method: Method, condition: str, **figures: Any) -> None:
        """Keep one cell."""
        self.cells.append({"model": method.subject.name, "method": method.name, "condition": condition} | figures)
        self.write()

    def write(self) -> None:
        """Write all there is."""
        write_json(self.output.with_suffix(".json"), {**self.about, "cells": self.cells, "left_out": self.left_out})
        write_text(self.output.with_suffix(".md"), "\n".join(markdown(self)) + "\n")


class Bench:
    """The measurement: sessions are loaded once, and cells started until the time is up."""

    def __init__(
        self, every: Sequence[Method], texts: Sequence[str], device: Device, results: Results, end: float,
        *, rows: int, seconds: float,
    ) -> None:  # fmt: skip
        self.every, self.texts, self.device, self.results, self.end = every, texts, device, results, end
        self.rows, self.seconds = rows, seconds
        self.sessions: dict[str, Session] = {}
        self.expected: dict[str, Array] = {}  # by model: the logits of its first variant in PyTorch

    def run(self, batches: Sequence[int], lengths: Sequence[int]) -> None:
        """Measure real rows, then the grid of what ran on them."""
        for method in self.every:
            self._cell(method, REAL, partial(self._on_real_rows, method))
        conditions = [(batch, length) for length in lengths for batch in batches]
        for batch, length in conditions:
            for method in self.every:
                if method.label in self.sessions:
                    action = partial(self._in_grid, method, batch, length)
                    self._cell(method, f"{batch} × {length}", action)

    def _cell(self, method: Method, condition: str, action: Callable[[], Mapping[str, Any]]) -> None:
        if time.monotonic() > self.end:
            self.results.left_out.append(f"{method.label}, {condition}")
            self.results.write()
            return
        try:
            figures = action()
        except Exception as error:  # runtimes' errors share no base class, and one must not lose the others
            figures = {"not_measured": in_one_line(error)}
        self.results.add(method, condition, **figures)

    def _on_real_rows(self, method: Method) -> dict[str, Any]:
        if why := method.runtime.unavailable(folder := method.folder(), self.device):
            return {"not_measured": why}
        session = method.runtime.load(folder, self.device, threads=1, variant=method.variant)
        logits = one_by_one(session, method.subject.reader.tokens)
        self.sessions[method.label] = session
        expected = self._expected(method.subject)
        difference = float(np.abs(logits - expected).max())
        timed = self._beside_reference(
            method, lambda sessions: real_rows(
                sessions, {method.label: method.subject.reader, **self._of_reference(lambda s: s.reader)},
                [(text,) for text in self.texts], rows=self.rows, seconds=self.seconds, threads=1,
            ),
        )  # fmt: skip
        return timed | {
            "agreement": method.subject.task.agreement(logits, expected),
            "max_abs_difference": difference if np.isfinite(difference) else None,
        }

    def _in_grid(self, method: Method, batch: int, length: int) -> dict[str, Any]:
        tokenizers = {method.label: method.subject.reader.tokenizer, **self._of_reference(lambda s: s.reader.tokenizer)}
        return self._beside_reference(
            method, lambda sessions: grid(
                sessions, {label: tokenizers[label] for label in sessions}, batches=[batch], lengths=[length],
                seconds=self.seconds, threads=1,
            ),
        )  # fmt: skip

    def _of_reference(self, what: Callable[[Subject], Any]) -> dict[str, Any]:
        return {self.every[0].label: what(self.every[0].subject)}

    def _beside_reference(
        self, method: Method, timing: Callable[[Mapping[str, Session]], Mapping[str, list[dict[str, Any]]]]
    ) -> dict[str, Any]:
        """Return the figures of a method, timed in turn with the reference where that runs."""
        reference = self.every[0].label
        chosen = dict.fromkeys(label for label in (reference, method.label) if label in self.sessions)
        entries = timing({label: self.sessions[label] for label in chosen})
        own, other = (median_ms(entries.get(label, [])) for label in (method.label, reference))
        failure = next((entry["not_measured"] for entry in entries[method.label] if "not_measured" in entry), "")
        return {
            "latency": entries[method.label],
            "speedup": other / own if own and other else None,
            **({"not_measured": failure} if failure else {}),
        }

    def _expected(self, subject: Subject) -> Array:
        """Return what a model's first variant in PyTorch answers on the device."""
        if subject.name not in self.expected:
            runtime = RUNTIMES[PyTorch.name]
            first = runtime.variants(subject.folder, self.device)[0].name
            session = runtime.load(subject.folder, self.device, threads=1, variant=first)
            self.expected[subject.name] = one_by_one(session, subject.reader.tokens)
        return self.expected[subject.name]


def median_ms(entries: Sequence[Mapping[str, Any]], *, copies: bool = False) -> float | None:
    """Return the median without tokenization, with or without copies; None where that was not timed."""
    return next(
        (
            entry["median_ms"] for entry in entries
            if not entry["tokenization"] and bool(entry.get("copies")) is copies and "median_ms" in entry
        ),
        None,
    )  # fmt: skip


def markdown(results: Results) -> Iterator[str]:
    """Yield the lines: what and where, real rows, a table for each condition of the grid, and what has no figures."""
    about, machine = results.about, results.about["machine"]
    yield f"`{about['command']}`"
    yield ""
    yield f"{machine['gpu'] if about['device'] == CUDA.name else machine['cpu']}; " + ", ".join(
        f"{name} {version}" for name, version in about["versions"].items()
    )
    for condition in dict.fromkeys(cell["condition"] for cell in results.cells):
        cells = [cell for cell in results.cells if cell["condition"] == condition and "not_measured" not in cell]
        if not cells:
            continue
        yield f"\n### {condition if condition == REAL else f'{condition} tokens'}\n"
        yield "| model | method | ms | ms with copies | rows/s | speedup | agree | difference |"
        yield "|---|---|---:|---:|---:|---:|---:|---:|"
        yield from map(line, cells)
    missing: dict[str, list[str]] = {}
    for cell in results.cells:
        if "not_measured" in cell:
            name = f"{cell['model']}, {cell['method']}, {cell['condition']}"
            missing.setdefault(cell["not_measured"], []).append(name)
    if missing:
        yield "\n### Not measured\n"
        yield from (f"- {'; '.join(names)}: {why}" for why, names in missing.items())
    if results.left_out:
        yield f"\n### Left out, for lack of time ({about['budget_seconds']:g} s)\n"
        yield from (f"- {name}" for name in results.left_out)


def line(cell: Mapping[str, Any]) -> str:
    """Return a row of a table."""
    own, copied = median_ms(cell["latency"]), median_ms(cell["latency"], copies=True)
    shown = [
        cell["model"], cell["method"], number(own, ".3g"), number(copied, ".3g"),
        number(own and cell["latency"][0]["batch"] * 1e3 / own, ",.0f"), number(cell["speedup"], ".2f", "×"),
        number(cell.get("agreement"), ".1%"), number(cell.get("max_abs_difference"), ".1e"),
    ]  # fmt: skip
    return f"| {' | '.join(shown)} |"


def number(value: float | None, form: str, unit: str = "") -> str:
    """Return a number, or a dash where there is none."""
    return "–" if value is None else f"{value:{form}}{unit}"


def refuse(message: str) -> NoReturn:
    """Print in one line why nothing can be measured."""
    print(f"gpu.py: {message}", file=sys.stderr)
    raise SystemExit(2)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        refuse(f"{message}. See --help.")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the checked command line."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = _Parser(description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="its folder; speedups are against it")
    parser.add_argument("--student", type=Path, required=True, help="its folder")
    parser.add_argument("--int8", type=Path, help="folder of the student's int8 graph, artifacts/tensorrt-int8")
    parser.add_argument("--texts", type=Path, required=True, help="a file of real texts, one per line")
    parser.add_argument("--rows", type=int, default=200, help="texts that are used (default %(default)s)")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), help="(default %(default)s)")
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS), help="(default %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each cell (default %(default)s)")
    parser.add_argument(
        "--budget", type=float, default=480.0, help="seconds after which no cell is started (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="(default %(default)s), .md beside it")
    parser.add_argument("--device", default=CUDA.name, help="(default %(default)s)")
    given = parser.parse_args(words)
    for name in ("batches", "tokens", "rows"):
        if min(value if isinstance(value := getattr(given, name), list) else [value]) < 1:
            parser.error(f"--{name} must be at least 1")
    for name in ("seconds", "budget"):
        if not getattr(given, name) > 0:
            parser.error(f"--{name} must be above 0")
    if given.output.suffix != ".json":
        parser.error(f"--output {given.output} must end in .json")
    if not given.texts.is_file():
        parser.error(f"--texts {given.texts}: there is no such file")
    if given.int8 is not None and not (given.int8 / MODEL).is_file():
        parser.error(f"--int8 {given.int8}: there is no {MODEL} in it")
    return given


def main(words: Sequence[str] | None = None) -> None:
    """Run the command."""
    start, words = time.monotonic(), list(sys.argv[1:] if words is None else words)
    given = arguments(words)
    texts = [text for text in given.texts.read_text(encoding="utf-8").splitlines() if text.strip()][: given.rows]
    if not texts:
        refuse(f"--texts {given.texts}: it has no text")
    try:
        (device,) = chosen_devices([given.device], "--device")
        teacher, student = (Subject.of(name, getattr(given, name), texts) for name in ("teacher", "student"))
    except CompressError as error:
        refuse(str(error))
    longest = min(teacher.longest, student.longest)
    if max(given.tokens) > longest:
        refuse(f"--tokens {max(given.tokens)}: these models take at most {longest} tokens")
    about = {
        "command": shlex.join(["python", "benchmarks/gpu.py", *words]), "device": device.name,
        "machine": describe(1), "versions": versions(), "budget_seconds": given.budget, "rows": len(texts),
    }  # fmt: skip
    results = Results(given.output, about)
    with tempfile.TemporaryDirectory() as scratch, device.active(), torch_threads(1):
        folders = Folders(student, Path(scratch), (max(given.batches), max(given.tokens)))
        every = list(methods(teacher, student, given.int8, device, folders))
        bench = Bench(every, texts, device, results, start + given.budget, rows=len(texts), seconds=given.seconds)
        bench.run(given.batches, given.tokens)
    print(given.output.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
