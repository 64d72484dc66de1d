"""Reading report.json: from plain JSON to the records of `compress.report.records`."""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import CompressError
from compress.files import storage_error
from compress.report.records import (
    Augmentation,
    Cut,
    DepthCurve,
    Entry,
    Flips,
    Group,
    Int8Part,
    Latency,
    Report,
    Run,
    SensitivePart,
    Sensitivity,
)
from compress.report.summary import summary_of
from compress.runs import run_in
from compress.tasks.paired import Difference

SCHEMA = 1
_NESTED = "its values are nested too deeply for a report. Run the recipe again to write it anew."
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def load_report(path: Path) -> dict[str, Any]:
    """Read report.json; ``path`` may be its run directory. Raises CompressError when it cannot be used."""
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    if path.exists() and not path.is_file():
        raise CompressError(f"{path} is no regular file. A finished run has a report.json; name its folder.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = run_in(path.parent) or "A finished run has a report.json; name its folder."
        raise CompressError(f"{path} does not exist. {remedy}") from None
    except OSError as error:
        raise storage_error(error, path) or error from error
    except UnicodeDecodeError as error:
        raise CompressError(f"{path} cannot be read: {error}.") from error
    except ValueError as error:
        raise CompressError(f"{path} is not valid JSON: {error}. Run the recipe again to write it anew.") from error
    except RecursionError:
        raise CompressError(f"{path}: {_NESTED}") from None
    try:
        parse(document)
        result: dict[str, Any] = clean(document)
    except CompressError as error:
        raise CompressError(f"{path}: {error}") from None
    except RecursionError:
        raise CompressError(f"{path}: {_NESTED}") from None
    return result


def clean(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: NaN and infinities become null, control characters U+FFFD."""
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return _UNPRINTABLE.sub("\ufffd", str(value))


def parse(document: Any) -> Report:
    """Return the report that ``document`` holds; raises CompressError where it is none of ours."""
    if not isinstance(document, Mapping) or "schema" not in document:
        raise CompressError("this is not a report of compress: it has no key 'schema'.")
    if document["schema"] != SCHEMA:
        raise CompressError(
            f"the report has schema {document['schema']!r}, this version of compress reads schema {SCHEMA}. "
            "Use the version that wrote it, or run the recipe again."
        )
    body = clean(document)
    task, dataset = _mapping(body, "task"), _mapping(body, "dataset")
    return Report(
        recipe=_text(body, "recipe"),
        name=_text(body, "name"),
        command=_text(body, "command"),
        settings=_mapping(body, "settings"),
        seed=_whole(body, "seed"),
        started=_text(body, "started"),
        seconds=_number(body, "seconds"),
        machine=_mapping(body, "machine"),
        versions={key: str(value) for key, value in _mapping(body, "versions").items() if value is not None},
        task_kind=_text(task, "kind"),
        labels=_texts(task, "labels"),
        main_metric=_text(task, "main_metric") or "accuracy",
        dataset=_text(dataset, "name"),
        rows={key: int(value) for key, value in _numbers(dataset, "rows").items()},
        fingerprint=_text(dataset, "fingerprint"),
        notes=_texts(dataset, "notes"),
        summary=summary_of(_mapping(dataset, "summary")),
        stages=[_entry("stage", item) for item in _mappings(body, "stages")],
        artifacts=[_entry("artifact", item) for item in _mappings(body, "artifacts")],
        baselines=[_entry("baseline", item) for item in _mappings(body, "baselines")],
        recommended=_text(body, "recommended"),
        warnings=_texts(body, "warnings"),
        verdicts=_texts(body, "verdicts"),
        augmentations=[_augmentation(item) for item in _mappings(body, "augmentation")],
        depths=[_depth_curve(item) for item in _mappings(body, "depths")],
    )


def _augmentation(item: dict[str, Any]) -> Augmentation:
    return Augmentation(
        kind=_text(item, "kind"),
        settings={name: value for name, value in _mapping(item, "settings").items() if name != "kind"},
        counts={name: int(value) for name, value in _numbers(item, "counts").items()},
        examples=[
            (" | ".join(_texts(example, "original")), " | ".join(_texts(example, "augmented")))
            for example in _mappings(item, "examples")
        ],
        seconds=_number(item, "seconds"),
        reused=bool(item.get("reused")),
    )


def _depth_curve(item: dict[str, Any]) -> DepthCurve:
    cuts = [
        Cut(
            layers=[int(layer) for layer in _list(cut, "layers") if _is_number(layer)],
            metrics=_numbers(cut, "metrics"),
            interval=_intervals(cut),
        )
        for cut in _mappings(item, "cuts")
    ]
    return DepthCurve(
        name=" ".join(_text(item, "name").split()) or "unnamed",
        layer_drop=_number(item, "layer_drop"),
        order=_text(item, "order"),
        cuts=sorted((cut for cut in cuts if cut.layers), key=lambda cut: len(cut.layers)),
    )


def _entry(group: Group, item: dict[str, Any]) -> Entry:
    return Entry(
        group=group,
        name=" ".join(_text(item, "name").split()) or "unnamed",
        kind=_text(item, "kind"),
        runtime=_text(item, "runtime"),
        precision=_text(item, "precision"),
        path=_text(item, "path"),
        metrics=_numbers(item, "metrics"),
        interval=_intervals(item),
        parameters=_whole(item, "parameters"),
        size_mib=_number(item, "size_mib"),
        seconds=_number(item, "seconds"),
        reused=bool(item.get("reused")),
        retained=_number(item, "retained"),
        agreement=_number(item, "agreement"),
        max_abs_difference=_number(item, "max_abs_difference"),
        latency=[_latency(timing) for timing in _mappings(item, "latency")],
        speedup=_number(item, "speedup"),
        rows_per_second=_number(item, "rows_per_second"),
        int8_matmuls=_pair(item, "int8_matmuls"),
        layers=_mappings(item, "layers"),
        curves=_mappings(item, "curves"),
        notes=_texts(item, "notes"),
        differences=_differences(item),
        int8_parts=[
            Int8Part(part=_text(one, "part"), int8=_texts(one, "int8"), floats=_texts(one, "floats"))
            for one in _mappings(item, "int8_parts")
        ],
        flipped=_flips(_mapping(item, "flipped")),
        sensitivity=_sensitivity(_mapping(item, "sensitivity")),
        not_measured=_text(item, "not_measured"),
        runs=[_run(run) for run in _mappings(item, "runs")],
    )


def _run(item: dict[str, Any]) -> Run:
    return Run(
        device=_text(item, "device"),
        variant=_text(item, "variant"),
        precision=_text(item, "precision"),
        metrics=_numbers(item, "metrics"),
        interval=_intervals(item),
        agreement=_number(item, "agreement"),
        max_abs_difference=_number(item, "max_abs_difference"),
        speedup=_number(item, "speedup"),
        rows_per_second=_number(item, "rows_per_second"),
        int8_matmuls=_pair(item, "int8_matmuls"),
        not_measured=_text(item, "not_measured"),
    )


def _pair(item: dict[str, Any], key: str) -> tuple[int, int] | None:
    numbers = [int(value) for value in _list(item, key) if _is_number(value)]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def _differences(item: dict[str, Any]) -> dict[str, Difference]:
    """Return the paired differences that are whole."""
    keys = ("value", "low", "high", "p")
    return {
        name: Difference(metric=str(found.get("metric", "")), **{key: float(found[key]) for key in keys})
        for name, found in _mapping(item, "differences").items()
        if isinstance(found, dict) and all(_is_number(found.get(key)) for key in keys)
    }


def _flips(item: dict[str, Any]) -> Flips | None:
    count = _whole(item, "count")
    if count is None:
        return None
    keys = ("row", "text", "label", "student", "artifact")
    return Flips(count=count, rows=[{key: _text(row, key) for key in keys} for row in _mappings(item, "rows")])


def _sensitivity(item: dict[str, Any]) -> Sensitivity | None:
    if not item:
        return None
    return Sensitivity(
        metric=_text(item, "metric"),
        fp32=_number(item, "fp32"),
        rows=_whole(item, "rows") or 0,
        order=_text(item, "order"),
        max_drop=_number(item, "max_drop"),
        parts=[
            SensitivePart(
                part=_text(one, "part"),
                sensitivity=_number(one, "sensitivity") or 0.0,
                drop=_number(one, "drop"),
                precision=_text(one, "precision"),
            )
            for one in _mappings(item, "parts")
        ],
        steps=[(len(_list(one, "fp32")), _number(one, "drop") or 0.0) for one in _mappings(item, "steps")],
    )


def _latency(item: dict[str, Any]) -> Latency:
    tokens = item.get("tokens")
    return Latency(
        device=_text(item, "device"),
        threads=_whole(item, "threads"),
        batch=_whole(item, "batch"),
        tokens=tokens if isinstance(tokens, str) else _whole(item, "tokens"),
        tokenization=bool(item.get("tokenization")),
        median_ms=_number(item, "median_ms"),
        p90_ms=_number(item, "p90_ms"),
        p99_ms=_number(item, "p99_ms"),
        calls=_whole(item, "calls"),
        copies=bool(item.get("copies")),
        variant=_text(item, "variant"),
    )


def _intervals(item: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {
        name: (float(pair[0]), float(pair[1]))
        for name, pair in _mapping(item, "interval").items()
        if isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    return "" if value is None else str(value)


def _number(item: Mapping[str, Any], key: str) -> float | None:
    value = item.get(key)
    return float(value) if value is not None and _is_number(value) else None


def _whole(item: Mapping[str, Any], key: str) -> int | None:
    value = _number(item, key)
    return None if value is None else int(value)


def _numbers(item: Mapping[str, Any], key: str) -> dict[str, float]:
    return {name: float(value) for name, value in _mapping(item, key).items() if _is_number(value)}


def _list(item: Mapping[str, Any], key: str) -> list[Any]:
    return _typed(item, key, list, "a list") or []


def _mapping(item: Mapping[str, Any], key: str) -> dict[str, Any]:
    return _typed(item, key, dict, "an object") or {}


def _texts(item: Mapping[str, Any], key: str) -> list[str]:
    return [str(value) for value in _list(item, key) if value is not None]


def _mappings(item: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = _list(item, key)
    if not all(isinstance(value, dict) for value in found):
        raise CompressError(f"'{key}' must be a list of objects.")
    return found


def _typed(item: Mapping[str, Any], key: str, kind: type, name: str) -> Any:
    value = item.get(key)
    if value is not None and not isinstance(value, kind):
        raise CompressError(f"'{key}' must be {name}, not {value!r}.")
    return value
