"""An ONNX folder: graph, tokenizer and labels, enough to serve with onnxruntime and tokenizers alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from compress.errors import MissingPackageError
from compress.files import write_text
from compress.models.loading import load_model, load_tokenizer
from compress.models.onnx_graph import input_names, write_onnx
from compress.state import Product, State

MODEL = "model.onnx"
BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json")


def import_onnxruntime(purpose: str) -> Any:
    """Return the module; raises MissingPackageError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError("onnxruntime", "onnx", purpose) from error
    return onnxruntime


def onnx_student(state: State) -> Product:
    """Return the folder with the student's fp32 graph, written once and kept in the cache."""
    student = state.given_student

    def work(folder: Path) -> None:
        write_onnx(load_model(student.folder), input_names(load_tokenizer(student.folder)), folder / MODEL)
        with_tokenizer(student.folder, folder)

    return state.workshop.make("onnx", [student.key], work)


def with_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer and the configuration (labels) from ``source``; the model's code is for PyTorch and stays."""
    for name in BESIDE:
        shutil.copyfile(source / name, folder / name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.pop("auto_map", None) is not None:
        write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
