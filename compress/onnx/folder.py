"""An ONNX folder: graph, tokenizer and labels, enough to serve with onnxruntime and tokenizers alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from compress.families.registry import EXITING, UNEVEN, family_behind
from compress.files import copy_file, write_text
from compress.models.facts import GraphFacts, described, facts_of, read_facts
from compress.models.folder import CONFIG, FACTS, TOKENIZER, TOKENIZER_CONFIG, read_object
from compress.models.loading import load_model, load_tokenizer
from compress.onnx.graph import exported, input_names
from compress.onnx.needs import needs_of
from compress.onnx.storage import copy_graph, save_graph
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product

MODEL = "model.onnx"
BESIDE = (CONFIG, TOKENIZER, TOKENIZER_CONFIG)


def onnx_student(state: State) -> Product:
    """Return the folder with the student's fp32 graph, written once and kept in the cache."""
    return onnx_of(state.given_student, state)


def onnx_of(model: Model, state: State) -> Product:
    """Return the folder with the fp32 graph of a saved model for the state's data, written once and kept."""
    pairs = state.data.pairs

    def work(folder: Path) -> None:
        graph = exported(load_model(model.folder), input_names(load_tokenizer(model.folder)))
        write_folder(graph, model.folder, folder, pairs=pairs)

    return state.workshop.make(Kind("onnx", revision=3), [model.key, pairs], work)


def write_folder(graph: Any, source: Path, folder: Path, *, pairs: bool) -> None:
    """Write a graph (``onnx.ModelProto``), which loses its shapes, and what is beside it: see `with_tokenizer`."""
    save_graph(graph, folder / MODEL)
    with_tokenizer(source, folder, pairs=pairs, graph=needs_of(graph, MODEL))


def with_tokenizer(source: Path, folder: Path, *, pairs: bool, graph: GraphFacts | None = None) -> None:
    """Copy the tokenizer and the configuration (labels) from ``source``; the model's code is for PyTorch and stays.

    Both are said in words that others know, too, as Optimum with transformers 4: a model whose layers differ in shape,
    or that has early exits, is of its family's type (both are in the graph). ``config.json`` says how the artifact is
    used (`Facts`), and ``tokenizer.json`` alone cuts rows where it says.
    """
    facts = facts_of(source, pairs=pairs, graph=graph)
    config = json.loads(described(source, facts))
    family = family_behind(config["model_type"], UNEVEN, EXITING)
    config["model_type"] = config["model_type"] if family is None else family.model_type
    config.pop("auto_map", None)
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    shutil.copyfile(source / TOKENIZER_CONFIG, folder / TOKENIZER_CONFIG)
    tokenizer = Tokenizer.from_file(str(source / TOKENIZER))
    tokenizer.no_padding()
    side = read_object(source / TOKENIZER_CONFIG).get("truncation_side", "right")
    tokenizer.enable_truncation(facts.longest_row, strategy="longest_first", direction=side)
    write_text(folder / TOKENIZER, tokenizer.to_str(pretty=True))


def copy_beside(source: Path, folder: Path, file: str) -> None:
    """Copy the tokenizer and the configuration of an artifact to a folder that has its graph as ``file``."""
    for name in (TOKENIZER, TOKENIZER_CONFIG):
        copy_file(source / name, folder / name)
    config, facts = read_object(source / CONFIG), read_facts(source)
    if facts is not None and facts.graph is not None:
        config[FACTS] = asdict(replace(facts, graph=replace(facts.graph, file=file)))
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def copy_folder(source: Path, folder: Path) -> None:
    """Copy an artifact: its graph and what is beside it."""
    copy_graph(source / MODEL, folder / MODEL)
    copy_beside(source, folder, MODEL)


def graph_in(folder: Path) -> Path | None:
    """Return the ONNX file that stands for a folder: `MODEL`, or the one that its config.json names; None without."""
    if (folder / MODEL).is_file():
        return folder / MODEL
    facts = read_facts(folder)
    named = folder / facts.graph.file if facts is not None and facts.graph is not None else None
    return named if named is not None and named.is_file() else None
