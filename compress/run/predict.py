"""Try any saved student or artifact on a few texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.data.dataset import Split
from compress.errors import ModelError
from compress.files import no_folder
from compress.models.facts import read_facts
from compress.models.loading import load_config, load_tokenizer
from compress.models.positions import longest_row
from compress.models.tokens import tokenize
from compress.report import load_report
from compress.runs import run_in
from compress.runtimes.devices import chosen_devices
from compress.runtimes.pytorch import PyTorch
from compress.runtimes.registry import RUNTIMES, load_session
from compress.runtimes.rows import one_by_one
from compress.tasks.registry import task_of_config


def artifact_folder(path: Path) -> Path:
    """Return the folder to load: a run's recommended artifact, or ``path`` itself.

    Raises ModelError where ``path`` is neither a run, nor an ONNX folder, nor a transformers folder of an encoder.
    """
    if rule := no_folder(path):
        raise ModelError(f"{path}: {rule}. Name a run, or a student or artifact folder in it.")
    if (path / "report.json").is_file():
        report = load_report(path)
        chosen = report.best
        return path / (chosen.path if chosen else "student")
    if sentence := run_in(path):
        raise ModelError(f"{path}: is not a run. {sentence}")
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: is neither a run (report.json) nor a model folder (config.json).")
    if RUNTIMES[PyTorch.name].owns(path):
        load_config(path)  # which refuses models of other kinds, before anything else is read of them
    return path


def predict(
    path: str | Path,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    device: str = "cpu",
    decoding: str = "",
) -> list[dict[str, Any]]:
    """Return a readable prediction per text: label and probabilities, a score, or spans. Raises CompressError.

    ``path`` is a run, whose recommended artifact answers, or a student or artifact folder; ``pairs`` are second texts,
    one for each text, or several for a single one;
    ``device`` is "cpu", or "cuda" where the machine has a GPU; ``decoding`` is a way of reading answers that the task
    has, as "viterbi" for tags.
    """
    texts, pairs = _listed(texts), _listed(pairs or ())
    if len(texts) == 1 and len(pairs) > 1:
        texts = texts * len(pairs)  # a query and its candidates
    if pairs and len(pairs) != len(texts):
        raise ModelError(f"{len(texts)} texts, but {len(pairs)} second texts. Give one second text per text.")
    if not texts or any(not text.strip() for text in texts):
        raise ModelError("There is nothing to predict. Give one or more texts, none of them empty.")
    (place,) = chosen_devices([device], "--device")
    folder = artifact_folder(Path(path).expanduser())
    tokenizer = load_tokenizer(folder)
    config = load_config(folder, weights=False)
    facts = read_facts(folder)
    if facts is not None and facts.pairs != bool(pairs):
        about = (
            "pairs of texts: give a second one for each (--pair)" if facts.pairs else "single texts: leave out --pair"
        )
        raise ModelError(f"{folder}: this model was made for {about}.")
    task = task_of_config(config)
    if decoding and decoding not in task.decodings:
        known = f"It knows {', '.join(task.decodings)}." if task.decodings else "Leave it out."
        raise ModelError(f"--decoding {decoding}: is no way to read answers of the task {task.name}. {known}")
    by_token = type(task) if task.by_token else None
    split = Split(tuple(map(task.read, texts)), tuple(pairs) or None, by_token=by_token, overlap=task.overlap)
    longest = min(tokenizer.model_max_length, longest_row(config))
    with place.active():
        logits = one_by_one(load_session(folder, place), tokenize(split, tokenizer, longest))
    return task.answers(logits, texts, decoding, pairs or None)


def _listed(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
