"""An ONNX folder: graph, tokenizer and labels, enough to serve with onnxruntime and tokenizers alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from compress.families.registry import UNEVEN, family_behind
from compress.files import write_text
from compress.models.loading import load_model, load_tokenizer
from compress.onnx.graph import input_names, write_onnx
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product, Workshop

MODEL = "model.onnx"
IN_FLOATS = "compress.in_floats"  # metadata of a graph whose int8 is another device's: here it is computed in floats
BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json")


def onnx_student(state: State) -> Product:
    """Return the folder with the student's fp32 graph, written once and kept in the cache."""
    return onnx_of(state.given_student, state.workshop)


def onnx_of(model: Model, workshop: Workshop) -> Product:
    """Return the folder with a saved classifier's fp32 graph, written once and kept in the cache."""

    def work(folder: Path) -> None:
        write_onnx(load_model(model.folder), input_names(load_tokenizer(model.folder)), folder / MODEL)
        with_tokenizer(model.folder, folder)

    return workshop.make(Kind("onnx", revision=1), [model.key], work)


def with_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer and the configuration (labels) from ``source``; the model's code is for PyTorch and stays.

    Both are said in words that others know, too, as Optimum with transformers 4: a model whose layers differ in shape
    is of its family's type (the shapes are in the graph), and a tokenizer of no type of its own is the plain fast one.
    """
    for name in BESIDE:
        shutil.copyfile(source / name, folder / name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = family_behind(config["model_type"], UNEVEN)
    config["model_type"] = config["model_type"] if family is None else family.model_type
    config.pop("auto_map", None)
    write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":  # the name since transformers 5
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_text(folder / "tokenizer_config.json", json.dumps(tokenizer, indent=2, sort_keys=True) + "\n")
