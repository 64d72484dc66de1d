"""Anything that can be run: a folder becomes a function from padded token numbers to logits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from compress.models.loading import load_model
from compress.models.tokens import Tokens
from compress.onnx.folder import MODEL, onnx_session
from compress.progress import progress
from compress.runtimes.timing import model_inputs
from compress.tasks.base import Array


class Runner(Protocol):
    """A loaded artifact."""

    runtime: str

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """Inputs (batch, tokens) int64 to logits (batch, outputs) fp32; returns when the answer is there."""
        ...


class TorchRunner:
    """A transformers folder in eager PyTorch, with transformers' default attention; quantized ones too."""

    runtime = "pytorch"

    def __init__(self, folder: Path) -> None:
        self.model = load_model(folder)
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells at every product that it casts

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """Return the logits."""
        logits: Array = self.model(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits.numpy()
        return logits


class OnnxRunner:
    """An ONNX folder in ONNX Runtime on the CPU."""

    runtime = "onnxruntime"

    def __init__(self, folder: Path, threads: int) -> None:
        self.session = onnx_session(folder / MODEL, threads)

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """Return the logits."""
        logits: Array = self.session.run(["logits"], dict(inputs))[0]
        return logits


def load_runner(folder: Path, threads: int) -> Runner:
    """Return the runner of an artifact or model folder; raises ModelError for any other folder."""
    if (folder / MODEL).is_file():
        return OnnxRunner(folder, threads)
    return TorchRunner(folder)


def one_by_one(runner: Runner, tokens: Tokens, title: str | None = None) -> Array:
    """Return the logits (rows, outputs) of a runner given one row at a time, as it is served."""
    rows = progress(range(len(tokens)), title=title, unit="row")
    return np.concatenate([runner(model_inputs(tokens, [row])) for row in rows])


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads, then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
