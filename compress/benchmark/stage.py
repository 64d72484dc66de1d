"""Everything a report measures: models, artifacts and baselines, on the same rows, by running them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.benchmark.baselines import tfidf
from compress.benchmark.depths import Depths
from compress.benchmark.flips import flips
from compress.benchmark.latency import Reader, grid, real_rows
from compress.errors import Fault, ModelError
from compress.families.base import can_be_taken_apart
from compress.families.forms.uneven import kept_heads, neurons
from compress.files import hash_file, size_mib
from compress.machine import describe, instructions
from compress.models.device import device
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model, load_tokenizer
from compress.models.outputs import parameters
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.artifact import Artifact
from compress.pipeline.model import Model
from compress.pipeline.record import Record, Role
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.runtimes.devices import CPU
from compress.runtimes.pytorch import torch_threads
from compress.runtimes.registry import RUNTIMES, load_session
from compress.runtimes.rows import one_by_one
from compress.settings import Settings, at_least, positive
from compress.tasks.base import Array

WEIGHTS = (".safetensors", ".onnx", ".data")


@dataclass(kw_only=True)
class Benchmark(Settings):
    """What is measured, and how long."""

    threads: int = 1  # of every runtime
    rows: int = 200  # test rows timed one by one at their real lengths
    batches: list[int] = field(default_factory=lambda: [1, 8, 32])  # of the latency grid
    tokens: list[int] = field(default_factory=lambda: [32, 128])  # lengths of the latency grid
    seconds: float = 2.0  # busy time after which a slow runner needs no 100 calls
    tfidf: bool = True  # the baseline TF-IDF + linear model
    labels_only: bool = True  # the baseline of the same student trained on labels alone
    depths: Depths = Depths.auto  # every depth of the distilled student, untrained; auto: every_other after LayerDrop
    depths_twin: bool = False  # the same of its twin trained without LayerDrop, which costs a training

    def faults(self) -> Iterator[Fault]:
        """Counts are counts."""
        yield from at_least(self, "threads", 1)
        yield from at_least(self, "rows", 1)
        yield from positive(self, "seconds")
        for name in ("batches", "tokens"):
            if any(value < 1 for value in getattr(self, name)):
                yield Fault(name, list(getattr(self, name)), "must list whole numbers from 1")
        if self.depths_twin and self.depths is Depths.none:
            yield Fault("depths_twin", True, "has no effect with depths = none", "Set benchmark.depths=auto.")

    def student_faults(self, student: Any) -> Iterator[Fault]:
        """Yield a student that cannot be cut to every depth, where that is asked for."""
        if self.depths not in (Depths.auto, Depths.none) and not can_be_taken_apart(student):
            rule = f"cannot remove layers from a student of type {student.model_type}"
            yield Fault("depths", self.depths.value, rule, "Set it to none.")

    def model_faults(self, longest: int, model: str = "teacher") -> Iterator[Fault]:
        """Yield lengths of the grid above the ``longest`` rows that the model takes, the teacher or a given student."""
        if max(self.tokens, default=0) > longest:
            yield Fault("tokens", list(self.tokens), f"must not exceed the {longest} tokens that the {model} takes")

    def measure(self, state: State, label_student: Record | None) -> dict[str, Any]:
        """Return the report's ``stages``, ``artifacts`` and ``baselines``.

        All is measured against the teacher, or, where there is none, against the student that was given. The
        ``differences`` of an entry are paired, by the name of what it is compared with: stages with the teacher and
        the stage before, the distilled student with ``labels_only`` too, artifacts with the ``student`` that they
        were made of, TF-IDF with the teacher and every artifact, ``labels_only`` with the teacher.
        """
        bench = _Bench(self, state)
        student = bench.logits(state.given_student)
        models = {record.name: record.model for record in state.records}
        latency = bench.latencies(models)
        first = state.records[0]
        teacher_time = _headline(latency["stages"][first.name])
        stages, answers = [], bench.logits(state.teacher or first.model)
        teacher_metric = bench.metric(answers)
        said = {record.name: bench.logits(record.model) for record in state.records}
        twin = bench.logits(label_student.model) if label_student else None
        distilled = next((record.name for record in reversed(state.records) if record.role is Role.distillation), None)
        for before, record in zip([None, *state.records[:-1]], state.records, strict=True):
            logits = said[record.name]
            others = {} if before is None else {first.name: answers, before.name: said[before.name]}
            if record.name == distilled and twin is not None:
                others["labels_only"] = twin
            stages.append(
                {"details": record.details.report()}
                | bench.scores(logits, teacher_metric)
                | _shape(record.model.folder)
                | {
                    "name": record.name, "kind": record.kind, "role": record.role.value,
                    "seconds": record.seconds, "reused": record.reused,
                    "agreement": state.data.task.agreement(logits, answers),
                    "differences": bench.differences(logits, others),
                    "latency": latency["stages"][record.name],
                    "speedup": teacher_time / _headline(latency["stages"][record.name]),
                    "curves": [dict(point) for point in record.curves], "notes": list(record.notes),
                }
            )  # fmt: skip
        artifacts, shipped = [], {}
        for artifact in state.artifacts:
            if _unavailable(artifact):
                artifacts.append(_unmeasured(artifact))
                continue
            itself = artifact.key == state.given_student.key
            logits = student if itself else bench.artifact_logits(artifact)
            difference = float(np.abs(logits - student).max())
            if not np.isfinite(difference):
                broken = int((~np.isfinite(logits).all(-1)).sum())
                raise ModelError(
                    f"{artifact.name}: its logits are not finite on {broken:,} of {len(logits):,} test rows. "
                    f"Leave it out; all that is done is kept, so the next run goes on from there."
                )
            if difference > artifact.tolerance:
                raise ModelError(
                    f"{artifact.name}: its logits differ from PyTorch's by up to {difference:.2g} on the test rows, "
                    f"more than export.{artifact.name}.tolerance = {artifact.tolerance:g}."
                )
            shipped[artifact.name] = logits
            trained = bench.against_trained(artifact, logits)
            times = latency["artifacts"].get(artifact.name) or latency["stages"][state.records[-1].name]
            artifacts.append(
                {"details": artifact.details.report()}
                | ({"target": artifact.target} if artifact.target else {})
                | bench.scores(logits, teacher_metric)
                | {
                    "name": artifact.name, "runtime": artifact.runtime, "precision": artifact.precision,
                    "path": "student" if itself else f"artifacts/{artifact.name}",
                    "size_mib": size_mib(artifact.folder, WEIGHTS),
                    "agreement": state.data.task.agreement(logits, student),
                    "differences": {} if itself else bench.differences(logits, {"student": student}),
                    "max_abs_difference": difference,
                    "latency": times, "speedup": teacher_time / _headline(times),
                    "rows_per_second": 1e3 / _headline(times),
                    **_int8(artifact), "flipped": flips(state.data, logits, student),
                    "seconds": artifact.seconds, **trained,
                    "notes": [*artifact.notes, *(_against(**one) for one in trained.values())],
                }
            )  # fmt: skip
        baselines = []
        if self.tfidf:
            baselines.append(self._tfidf(bench, {first.name: answers} | shipped, teacher_metric, teacher_time))
        if label_student is not None and twin is not None:
            baselines.append(_twin(bench, label_student, twin, {first.name: answers}, teacher_metric))
        return {"stages": stages, "artifacts": artifacts, "baselines": baselines}

    def _tfidf(
        self, bench: _Bench, others: Mapping[str, Array], teacher_metric: float, teacher_time: float
    ) -> dict[str, Any]:
        with torch_threads(self.threads):
            record = tfidf(bench.state.data, self.rows, self.threads)
        record["differences"] = bench.differences(record.pop("logits"), others)
        record["retained"] = _share(record["metrics"][bench.state.data.task.main_metric], teacher_metric)
        record["speedup"] = teacher_time / record["latency"][0]["median_ms"]
        return record


def _twin(
    bench: _Bench, trained: Record, logits: Array, others: Mapping[str, Array], teacher_metric: float
) -> dict[str, Any]:
    return bench.scores(logits, teacher_metric) | _shape(trained.model.folder) | {
        "name": "labels_only", "kind": "the same student, before pruning, trained on labels alone",
        "runtime": "pytorch", "precision": "fp32", "seconds": trained.seconds,
        "differences": bench.differences(logits, others),
        "curves": [dict(point) for point in trained.curves],
        "notes": ["same start, rows, steps and seed as in distillation, without preparations; the same speed"],
    }  # fmt: skip


class _Bench:
    """The test rows as each model's tokens, and logits and latencies on them from the cache."""

    def __init__(self, settings: Benchmark, state: State) -> None:
        self.settings, self.state = settings, state
        self.known: dict[str, Reader] = {}

    def reader(self, folder: Path) -> Reader:
        """Return how a model reads the test rows; models with the same tokenizer share one."""
        key = hash_file(folder / "tokenizer.json") + hash_file(folder / "tokenizer_config.json")
        if key not in self.known:
            tokenizer = load_tokenizer(folder)
            tokens = tokenize(self.state.data.test, tokenizer, tokenizer.model_max_length)
            self.known[key] = Reader(tokenizer, tokens)
        return self.known[key]

    def logits(self, model: Model) -> Array:
        """Return a PyTorch model's logits on the test rows."""

        def work(folder: Path) -> None:
            loaded = load_model(model.folder, on=device())
            np.save(folder / "logits.npy", predict_rows(loaded, tokens, "accuracy"))

        tokens = self.reader(model.folder).tokens
        return self._logits("torch", model.key, tokens, work)

    def artifact_logits(self, artifact: Artifact) -> Array:
        """Return an artifact's logits on the test rows, given one at a time as it is served."""

        def work(folder: Path) -> None:
            session = RUNTIMES[artifact.runtime].load(artifact.folder, CPU, threads=self.settings.threads)
            np.save(folder / "logits.npy", one_by_one(session, tokens, f"accuracy, {artifact.name}"))

        tokens = self.reader(artifact.folder).tokens
        return self._logits(f"{artifact.runtime} {' '.join(instructions())}", artifact.key, tokens, work)

    def against_trained(self, artifact: Artifact, logits: Array) -> dict[str, Any]:
        """Return how an artifact compares with the model that was trained for it; nothing where that is the student.

        Raises ModelError where they agree on fewer rows than they must.
        """
        if artifact.trained is None:
            return {}
        expected = self.logits(artifact.trained.model)
        agreement, least = self.state.data.task.agreement(logits, expected), artifact.trained.agreement
        if agreement < least:
            raise ModelError(
                f"{artifact.name}: it says what the trained model says on {agreement:.2%} of the test rows, fewer than "
                f"quantize.{artifact.name}.agreement = {least:g}. Train it longer, lower that, or leave it out; "
                "all else is kept, so the next run goes on from there."
            )
        difference = float(np.abs(logits - expected).max())
        return {"trained": {"rows": len(logits), "agreement": agreement, "max_abs_difference": difference}}

    def _logits(self, how: str, key: str, tokens: Tokens, work: Any) -> Array:
        product = self.state.workshop.make(Kind("logits", revision=1), [how, key, tokens.fingerprint], work)
        logits: Array = np.load(product.folder / "logits.npy", allow_pickle=False)
        return logits

    def metric(self, logits: Array) -> float:
        """Return the main metric."""
        return self.state.data.task.metrics(logits, self.state.data.test.known_labels)[self.state.data.task.main_metric]

    def scores(self, logits: Array, teacher_metric: float) -> dict[str, Any]:
        """Return metrics, their intervals and the share of the teacher's metric."""
        labels, task = self.state.data.test.known_labels, self.state.data.task
        metrics = task.metrics(logits, labels)
        return {
            "metrics": metrics,
            "interval": {name: list(bounds) for name, bounds in task.intervals(logits, labels).items()},
            "retained": _share(metrics[task.main_metric], teacher_metric),
        }

    def differences(self, logits: Array, others: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
        """Return the paired difference of the main metric to each of ``others``, by its name."""
        labels, task = self.state.data.test.known_labels, self.state.data.task
        return {name: asdict(task.difference(logits, other, labels)) for name, other in others.items()}

    def latencies(self, models: Mapping[str, Model]) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Return latencies of all models (real rows; grid for the teacher) and of all artifacts, measured together."""
        settings = self.settings
        artifacts = [a for a in self.state.artifacts if a.key != self.state.given_student.key and not _unavailable(a)]
        test = self.state.data.test
        texts = list(zip(test.texts, test.pairs, strict=True)) if test.pairs is not None else [(t,) for t in test.texts]

        def work(folder: Path) -> None:
            with torch_threads(settings.threads):
                folders = {f"stages/{name}": model.folder for name, model in models.items()}
                folders |= {f"artifacts/{artifact.name}": artifact.folder for artifact in artifacts}
                named = {name: load_session(folder, threads=settings.threads) for name, folder in folders.items()}
                readers = {name: self.reader(folder) for name, folder in folders.items()}
                found = real_rows(
                    named, readers, texts, rows=settings.rows, seconds=settings.seconds, threads=settings.threads
                )
                first, last = self.state.records[0].name, self.state.records[-1].name
                in_grid = {
                    k: r for k, r in named.items() if k in (f"stages/{first}", f"stages/{last}") or k.startswith("art")
                }
                more = grid(
                    in_grid, {name: readers[name].tokenizer for name in in_grid},
                    batches=settings.batches, lengths=settings.tokens,
                    seconds=settings.seconds, threads=settings.threads,
                )  # fmt: skip
            result: dict[str, Any] = {"stages": {}, "artifacts": {}}
            for key, entries in found.items():
                group, _, name = key.partition("/")
                result[group][name] = entries + more.get(key, [])
            (folder / "latency.json").write_text(json.dumps(result))

        keys = [{name: model.key for name, model in models.items()}, {a.name: a.key for a in artifacts}]
        timing = [settings.threads, settings.rows, list(settings.batches), list(settings.tokens), settings.seconds]
        machine = describe(settings.threads)
        product = self.state.workshop.make(
            Kind("latency", revision=1), [keys, timing, machine, self.state.data.test.fingerprint], work
        )
        loaded: dict[str, dict[str, list[dict[str, Any]]]] = json.loads((product.folder / "latency.json").read_text())
        return loaded


def _unavailable(artifact: Artifact) -> str:
    """Return why an artifact cannot be run here; empty where it can."""
    return artifact.unmeasured or RUNTIMES[artifact.runtime].unavailable(artifact.folder, CPU)


def _unmeasured(artifact: Artifact) -> dict[str, Any]:
    """Return what is known of an artifact that cannot be run on this machine."""
    return {
        "details": artifact.details.report(),
        "name": artifact.name, "runtime": artifact.runtime, "precision": artifact.precision,
        "path": f"artifacts/{artifact.name}", "size_mib": artifact.size_mib, "not_measured": _unavailable(artifact),
        "metrics": {}, "interval": {}, "latency": [], **_int8(artifact),
        "seconds": artifact.seconds, "notes": list(artifact.notes),
    }  # fmt: skip


def _headline(latency: list[dict[str, Any]]) -> float:
    """Return the median at batch 1 on real rows, without tokenization, in milliseconds."""
    return float(next(e["median_ms"] for e in latency if e["tokens"] == "real" and not e["tokenization"]))


def _against(rows: int, agreement: float, max_abs_difference: float) -> str:
    return (
        f"says what the trained model says on {agreement:.2%} of {rows:,} test rows; "
        f"logits differ by at most {max_abs_difference:.2g}"
    )


def _int8(artifact: Artifact) -> dict[str, Any]:
    """Return how many matrix products run in int8 of how many, and which by part of the model."""
    runtime = RUNTIMES.get(artifact.runtime)
    executed = runtime.executed(artifact.folder, CPU) if runtime and artifact.precision in runtime.counted else None
    if executed is None:
        return {"int8_matmuls": None}
    parts = {"int8_parts": [asdict(part) for part in executed.parts]} if executed.parts else {}
    return {"int8_matmuls": [executed.int8, executed.products], **parts}


def _share(metric: float, teacher: float) -> float | None:
    return metric / teacher if teacher > 0 else None


def _shape(folder: Path) -> dict[str, Any]:
    """Return parameters, size and each layer's heads and feed-forward units of a saved model."""
    model = load_model(folder)
    layers = []
    if can_be_taken_apart(model.config):
        shapes = zip(kept_heads(model.config), neurons(model.config), strict=True)
        layers = [{"heads": len(heads), "neurons": width} for heads, width in shapes]
    return {"parameters": parameters(model), "size_mib": size_mib(folder, WEIGHTS), "layers": layers}
