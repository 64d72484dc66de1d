"""How a folder is to be used, as its config.json says: whether rows are pairs, how long they may be, what runs it.

All of it is under one entry, which transformers ignores.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from msgspec import ValidationError, convert

from compress.errors import ModelError
from compress.models.folder import CONFIG, FACTS, TOKENIZER_CONFIG, read_object
from compress.models.loading import load_config
from compress.models.positions import longest_row
from compress.tasks.heads import named_outputs


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """The ONNX graph of a folder, and what loads and computes it rightly."""

    file: str  # within the folder
    opset: int
    ir_version: int
    onnxruntime: str  # the lowest version
    weight_bits: int | None = None  # of the integers in matrix products; None where there are none
    instructions: tuple[str, ...] = ()  # a processor must have one of them; none where any processor will do


@dataclass(frozen=True, kw_only=True)
class Facts:
    """How a model or artifact is to be used."""

    pairs: bool  # rows are two texts
    longest_row: int  # tokens, special ones included; longer rows are cut
    graph: GraphFacts | None = None  # of an artifact that has one


def read_facts(folder: Path) -> Facts | None:
    """Return what a folder's config.json says; None where it says nothing. Raises ModelError where that is damaged."""
    path = folder / CONFIG
    given = read_object(path).get(FACTS) if path.is_file() else None
    if given is None:
        return None
    try:
        facts = convert(given, Facts)
    except ValidationError as error:
        raise ModelError(f"{path}: {FACTS} cannot be read: {error}. Copy the file again.") from error
    file = PurePosixPath("" if facts.graph is None else facts.graph.file)
    if file.is_absolute() or ".." in file.parts:
        raise ModelError(f"{path}: {FACTS}.graph.file = {str(file)!r} must lie in the folder. Copy the file again.")
    return facts


def described(folder: Path, facts: Facts) -> str:
    """Return the text of a folder's config.json with ``facts``, and always with the names of all outputs."""
    entries = read_object(folder / CONFIG) | named_outputs(load_config(folder, weights=False))
    return json.dumps(entries | {FACTS: asdict(facts)}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def facts_of(folder: Path, *, pairs: bool, graph: GraphFacts | None = None) -> Facts:
    """Return the facts of a folder with a configuration and a tokenizer."""
    longest = longest_row(load_config(folder, weights=False))
    limit = read_object(folder / TOKENIZER_CONFIG).get("model_max_length") or longest
    return Facts(pairs=pairs, longest_row=int(min(limit, longest)), graph=graph)
