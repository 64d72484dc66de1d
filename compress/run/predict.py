"""Try any saved student or artifact on a few texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.data.dataset import Split
from compress.errors import ModelError
from compress.models.loading import load_config, load_tokenizer
from compress.models.positions import longest_row
from compress.models.tokens import tokenize
from compress.report import load_report
from compress.runs import run_in
from compress.runtimes.devices import chosen_devices
from compress.runtimes.registry import load_session
from compress.runtimes.rows import one_by_one
from compress.tasks.registry import task_of_config


def artifact_folder(path: Path) -> Path:
    """Return the folder to load: a run's recommended artifact, or ``path`` itself.

    Raises ModelError where ``path`` is neither a run, nor an ONNX folder, nor a transformers folder.
    """
    if not path.is_dir():
        raise ModelError(f"{path}: there is no such folder. Name a run, or a student or artifact folder in it.")
    if (path / "report.json").is_file():
        report = load_report(path)
        chosen = report.best
        return path / (chosen.path if chosen else "student")
    if sentence := run_in(path):
        raise ModelError(f"{path}: is no run. {sentence}")
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: is neither a run (report.json) nor a model folder (config.json).")
    return path


def predict(
    path: Path, texts: Sequence[str], pairs: Sequence[str] | None = None, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Return one readable prediction per text: label and probabilities, or a score. Raises CompressError."""
    if not texts or any(not text.strip() for text in texts):
        raise ModelError("There is no text to predict on. Give one or more texts, none of them empty.")
    (place,) = chosen_devices([device], "--device")
    folder = artifact_folder(path)
    tokenizer = load_tokenizer(folder)
    config = load_config(folder, weights=False)
    task = task_of_config(config)
    split = Split(tuple(texts), tuple(pairs) if pairs else None, by_token=type(task) if task.by_token else None)
    longest = min(tokenizer.model_max_length, longest_row(config))
    with place.active():
        logits = one_by_one(load_session(folder, place), tokenize(split, tokenizer, longest))
    return task.describe(logits)
