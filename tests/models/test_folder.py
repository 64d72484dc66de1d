"""Folders of models as they are downloaded: what is in them is taken, what is not is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.errors import ModelError
from compress.models.loading import load_config, load_tokenizer
from tests.conftest import save_tiny

UNLIMITED = int(1e30)  # what transformers writes where it knows no limit


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_tokenizer_without_a_limit_is_taken(tmp_path: Path, file: str) -> None:
    path = save_tiny(tmp_path / "model", num_labels=2) / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": UNLIMITED, "max_length": UNLIMITED}))
    assert load_config(path.parent).num_labels == 2
    assert load_tokenizer(path.parent).is_fast


@pytest.mark.parametrize("name", ["hidden_size", "vocab_size", "dim", "n_heads", "type_vocab_size", "d_model"])
def test_a_size_that_no_model_has_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = save_tiny(tmp_path / "model", num_labels=2) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: UNLIMITED}))
    with pytest.raises(ModelError, match=rf"config\.json: {name} = 1\d+ is too large for any model"):
        load_config(path.parent)


@pytest.mark.parametrize("value", [[], "8 bits", 8, True])
def test_a_quantization_that_is_no_object_is_refused(tmp_path: Path, value: object) -> None:
    path = save_tiny(tmp_path / "model", num_labels=2) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": value}))
    with pytest.raises(ModelError, match=r"config\.json: quantization_config must be a JSON object and is "):
        load_config(path.parent)


@pytest.mark.parametrize("file", ["spm.model", "sentencepiece.model", "spiece.model"])
@pytest.mark.parametrize("kind", ["deberta-v2", "bert"])
def test_a_model_of_sentencepiece_alone_is_told_from_no_tokenizer(tmp_path: Path, file: str, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / file).write_bytes(b"pieces")
    with pytest.raises(
        ModelError, match=rf"no fast tokenizer .*its {file} cannot be converted.*writes tokenizer\.json"
    ):
        load_tokenizer(tmp_path)


def test_a_fast_tokenizer_beside_a_model_of_sentencepiece_is_taken(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", num_labels=2)
    (folder / "spm.model").write_bytes(b"pieces")
    assert load_tokenizer(folder).is_fast
