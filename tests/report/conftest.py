"""An example report. Its figures are invented, only plausible; none was measured."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

ROWS = 2163


@pytest.fixture
def report() -> dict[str, Any]:
    """A new example report, to be changed at will."""
    return example_report()


def example_report() -> dict[str, Any]:
    """Return a new report of a run with four stages, four artifacts and two baselines."""
    stages = [
        stage("teacher", "FineTune", 0.861, 22_714_755, 86.7, 21.2, 410.0, layers=[(12, 1536)] * 6, agreement=None),
        stage("distill", "Distill", 0.849, 17_391_363, 66.4, 10.9, 655.0, layers=[(12, 1536)] * 3, agreement=0.951),
        stage("heads", "PruneHeads", 0.847, 16_800_771, 64.1, 10.5, 120.0, layers=[(9, 1536), (6, 1536), (10, 1536)]),
        stage("neurons", "PruneNeurons", 0.844, 15_325_443, 58.5, 6.9, 130.0, layers=[(9, 640), (6, 512), (10, 768)]),
    ]
    stages[0] |= {"reused": True, "speedup": 1.0, "retained": 1.0}
    stages[1]["curves"] = curves(["loss", "soft", "hidden", "labels"], steps=420)
    stages[2]["curves"] = curves(["loss", "soft"], steps=90)
    stages[3]["curves"] = [*curves(["loss", "soft", "labels"], steps=90), *curves(["loss", "soft", "labels"], steps=90)]
    stages[3]["notes"] = ["58 % of the neurons removed in 4 rounds."]
    artifacts = [
        artifact("student", "pytorch", "fp32", 58.5, 0.844, 6.9, agreement=1.0, difference=0.0),
        artifact("onnx", "onnxruntime", "fp32", 58.3, 0.844, 4.6, agreement=1.0, difference=2e-6),
        artifact("dynamic", "onnxruntime", "int8", 17.6, 0.843, 3.1, agreement=0.989, difference=0.41, ran=[19, 19]),
        artifact("static", "onnxruntime", "int8", 17.9, 0.838, 5.2, agreement=0.972, difference=0.93, ran=[12, 19]),
    ]
    artifacts[3]["notes"] = ["Slower than fp32 on this machine: no VNNI."]
    baselines = [
        {
            "name": "tfidf",
            "kind": "TF-IDF + logistic regression",
            **scored(0.813),
            "size_mib": 3.1,
            "parameters": 61_000,
        }
        | timed(0.21, small=True),
        stage(
            "labels_only",
            "the same student trained on labels alone",
            0.832,
            15_325_443,
            58.5,
            6.9,
            500.0,
            layers=[],
            agreement=0.921,
        ),
    ]
    baselines[0]["differences"] = {"teacher": difference(-0.048), "dynamic": difference(-0.03)}
    for before, after in pairwise(stages):
        after["differences"] = {"teacher": difference(after["metrics"]["accuracy"] - 0.861)}
        after["differences"][before["name"]] = difference(after["metrics"]["accuracy"] - before["metrics"]["accuracy"])
    stages[1]["differences"]["labels_only"] = difference(0.017)
    for made in artifacts[1:]:
        made["differences"] = {"student": difference(made["metrics"]["accuracy"] - 0.844)}
    return {
        "schema": 2,
        "recipe": "quickstart",
        "name": "example",
        "command": "compress run recipe=quickstart seed=13",
        "settings": {
            "seed": 13,
            "teacher": {"model": "all-MiniLM-L6-v2", "epochs": 2, "learning_rate": 5e-5},
            "student": {"layers": 3},
            "distill": {
                "losses": {"soft": {"temperature": 4.0, "weight": 1.0}, "hidden": {"weight": 0.5}},
                "epochs": 4,
            },
            "prune": {"heads": {"ratio": 0.3}, "neurons": {"ratio": 0.58, "rounds": 4}},
            "quantize": {"dynamic": {"reduce_range": True}, "static": {"rows": 256, "skip": ["classifier"]}},
            "cache": None,
        },
        "seed": 13,
        "started": "2026-01-15T10:20:30+00:00",
        "seconds": 1893.4,
        "machine": {
            "cpu": "Example CPU @ 2.60GHz",
            "instructions": ["avx2", "fma"],
            "cores": 2,
            "threads": 1,
            "gpu": None,
            "memory_gib": 7.8,
            "system": "Linux 6.1",
        },
        "versions": {"compress": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "onnxruntime": "1.30.0"},
        "task": {"kind": "classification", "labels": ["negative", "neutral", "positive"], "main_metric": "accuracy"},
        "dataset": {
            "name": "airline tweets",
            "rows": {"train": 6000, "validation": 600, "test": ROWS, "unlabelled": 3000},
            "fingerprint": "3f7a09c1d2e4",
            "test_fingerprint": "90be1c27aa05",
            "notes": ["14,640 rows read, 218 duplicates dropped.", "No test row is in the training split."],
        },
        "stages": stages,
        "artifacts": artifacts,
        "baselines": baselines,
        "recommended": "dynamic",
        "verdicts": [
            "static int8 is slower than fp32 here: 7 of 19 matrix products ran in fp32; dynamic is the better int8.",
            "Distillation helped: accuracy +1.7 points, against the same student trained on labels alone.",
        ],
        "shipping": {
            "decision": "ship with care",
            "reasons": [
                {
                    "rule": "weak_teacher",
                    "decision": "ship with care",
                    "text": "The teacher is weak.",
                    "detail": "Train it.",
                },
            ],
        },
    }


def difference(value: float) -> dict[str, Any]:
    """Return a paired difference of accuracy, 0.01 to either side."""
    p = 0.0004 if abs(value) > 0.01 else 0.25
    return {"metric": "accuracy", "value": value, "low": value - 0.01, "high": value + 0.01, "p": p}


def scored(accuracy: float) -> dict[str, Any]:
    """Return metrics about an accuracy, its interval and what is kept of the teacher's."""
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / ROWS)
    metrics = {"accuracy": accuracy, "macro_f1": accuracy - 0.061, "mcc": 1.62 * accuracy - 0.66}
    interval = {name: [value - half, value + half] for name, value in metrics.items()}
    return {"metrics": metrics, "interval": interval, "retained": accuracy / 0.861}


def timed(milliseconds: float, *, small: bool = False) -> dict[str, Any]:
    """Return a latency grid about the headline figure."""
    conditions: list[tuple[int, int | str, float]] = [(1, "real", 1.0)]
    if not small:
        conditions += [(b, t, 0.55 + 0.45 * (b * t / 32) ** 0.97) for b in (1, 8, 32) for t in (32, 128)]
    latency = [timing(batch, tokens, milliseconds * factor) for batch, tokens, factor in conditions]
    latency.insert(1, timing(1, "real", milliseconds + 0.18) | {"tokenization": True})
    return {"latency": latency, "speedup": 21.2 / milliseconds, "rows_per_second": 1000 / milliseconds}


def timing(batch: int, tokens: int | str, median: float) -> dict[str, Any]:
    """Return one entry of a latency grid."""
    where = {"device": "cpu", "threads": 1, "batch": batch, "tokens": tokens, "tokenization": False}
    return where | {"median_ms": median, "p90_ms": median * 1.12, "p99_ms": median * 1.4, "calls": 200}


def stage(
    name: str,
    kind: str,
    accuracy: float,
    parameters: int,
    mib: float,
    milliseconds: float,
    seconds: float,
    *,
    layers: list[tuple[int, int]],
    agreement: float | None = 0.943,
) -> dict[str, Any]:
    """Return the record of a stage."""
    return {
        "name": name,
        "kind": kind,
        **scored(accuracy),
        **timed(milliseconds),
        "parameters": parameters,
        "size_mib": mib,
        "seconds": seconds,
        "reused": False,
        "agreement": agreement,
        "layers": [{"heads": heads, "neurons": neurons} for heads, neurons in layers],
        "curves": [],
        "notes": [],
    }


def artifact(
    name: str,
    runtime: str,
    precision: str,
    mib: float,
    accuracy: float,
    milliseconds: float,
    *,
    agreement: float,
    difference: float,
    ran: list[int] | None = None,
) -> dict[str, Any]:
    """Return the record of an artifact."""
    return {
        "name": name,
        "runtime": runtime,
        "precision": precision,
        "path": f"artifacts/{name}",
        "size_mib": mib,
        **scored(accuracy),
        **timed(milliseconds),
        "agreement": agreement,
        "max_abs_difference": difference,
        "int8_matmuls": ran,
        "notes": [],
    }


def curves(losses: list[str], *, steps: int) -> list[dict[str, Any]]:
    """Return falling losses, with a validation score now and then."""
    rows: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        row: dict[str, Any] = {"step": step, "epoch": step / 105}
        for number, name in enumerate(losses):
            wobble = 0.04 * math.sin(step * (number + 1.3))
            row[name] = (1.4 - 0.3 * number) * math.exp(-step / 180) + 0.2 + 0.05 * number + wobble
        if step % 30 == 0:
            row |= {"grad_norm": 1.7, "learning_rate": 1e-4}
            rows.append(
                {"step": step, "epoch": step / 105, "validation_accuracy": 0.845 - 0.12 * math.exp(-step / 100)}
            )
        rows.append(row)
    return rows
