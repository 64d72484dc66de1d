"""Latency of any students and artifacts, side by side, on random token numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.benchmark.latency import grid
from compress.errors import CompressError
from compress.models.loading import load_tokenizer
from compress.run.predict import artifact_folder
from compress.runtimes.devices import CPU
from compress.runtimes.pytorch import torch_threads
from compress.runtimes.registry import runtime_of


def bench_paths(
    paths: Sequence[Path], batches: Sequence[int], tokens: Sequence[int], threads: int, seconds: float = 2.0
) -> list[dict[str, Any]]:
    """Return a record a path, with `latency` entries; all are called in turns. Raises CompressError."""
    folders = {str(path): artifact_folder(path) for path in paths}
    tokenizers = {name: load_tokenizer(folder) for name, folder in folders.items()}
    longest = min(tokenizer.model_max_length for tokenizer in tokenizers.values())
    if max(tokens) > longest:
        raise CompressError(f"--tokens {max(tokens)}: these models take at most {longest} tokens.")
    runtimes = {name: runtime_of(folder) for name, folder in folders.items()}
    with torch_threads(threads):
        sessions = {name: runtimes[name].load(folder, CPU, threads=threads) for name, folder in folders.items()}
        found = grid(sessions, tokenizers, batches=batches, lengths=tokens, seconds=seconds, threads=threads)
    return [
        {"path": name, "folder": str(folder), "runtime": runtimes[name].name, "latency": found[name]}
        for name, folder in folders.items()
    ]
