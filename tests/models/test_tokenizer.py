"""The tokenizer of an artifact: inputs that its model has, tokens that it has, rows as they were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from transformers import PreTrainedTokenizerFast

from compress.data.dataset import Split
from compress.errors import ModelError
from compress.models.ensemble import ensemble
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.models.tokenizer import same_tokens
from compress.models.tokens import tokenize
from compress.onnx.folder import MODEL, with_tokenizer
from compress.onnx.graph import input_names, write_onnx
from compress.runtimes.registry import load_session
from compress.runtimes.rows import one_by_one
from tests.conftest import save_tiny, tiny_model, tiny_tokenizer

PAIRS = Split(("good film", "the plot was bad"), ("bad actor", "so very good music"))


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def saved_by_transformers_4(folder: Path, family: str) -> Path:
    """Save a tiny classifier whose tokenizer's class is the plain one, which once always gave token types."""
    save_tiny(folder, family, num_labels=2)
    path = folder / "tokenizer_config.json"
    entries = {name: value for name, value in json.loads(path.read_text()).items() if name != "model_input_names"}
    path.write_text(json.dumps(entries | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


@pytest.mark.parametrize(
    ("family", "types"),
    [
        ("bert", True), pytest.param("electra", True, marks=pytest.mark.slow),
        pytest.param("roberta", False, marks=pytest.mark.slow), ("distilbert", False),
    ],
)  # fmt: skip
def test_token_types_are_inputs_where_model_and_template_have_them(tmp_path: Path, family: str, types: bool) -> None:
    folder, graph = saved_by_transformers_4(tmp_path / "model", family), tmp_path / "graph"
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    assert ("token_type_ids" in tokenizer.model_input_names) == types
    tokens = tokenize(PAIRS, tokenizer, 32)
    assert ("token_type_ids" in tokens.columns) == types
    graph.mkdir()
    save_model(model, tokenizer, tmp_path / "student")
    write_onnx(model, input_names(tokenizer), graph / MODEL)
    with_tokenizer(tmp_path / "student", graph, pairs=True)
    assert ("token_type_ids" in json.loads((graph / "tokenizer_config.json").read_text())["model_input_names"]) == types
    assert input_names(load_tokenizer(graph)) == input_names(tokenizer)
    given = tiny_tokenizer(family)(list(PAIRS.texts), list(PAIRS.pairs or ()), padding=True, return_tensors="pt")
    expected = model(**given).logits.detach().numpy()
    for place in (tmp_path / "student", graph):
        np.testing.assert_allclose(one_by_one(load_session(place), tokens), expected, atol=1e-4)


def test_token_types_are_no_input_where_the_model_has_one_only_whatever_its_tokenizer_says(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "roberta", "roberta", num_labels=2)
    change(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids"])
    assert load_tokenizer(folder).model_input_names == ["input_ids", "attention_mask"]


def test_an_ensemble_of_models_with_token_types_has_them(tmp_path: Path) -> None:
    first, second = tiny_model(num_labels=2), tiny_model(seed=1, num_labels=2)
    joined = ensemble([first, second], [[0, 1]] * 2, {"num_labels": 2}, combine="logits", weights=[1, 1], chosen=1)
    tokenizer = tiny_tokenizer("distilbert")
    save_model(joined, tokenizer, tmp_path)
    assert "token_type_ids" in load_tokenizer(tmp_path).model_input_names


def test_a_type_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", num_labels=2)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"type_id": 1', '"type_id": 2'))
    with pytest.raises(ModelError, match="type 2, and the model has types 0 to 1"):
        load_tokenizer(folder)


def test_tokens_without_an_embedding_are_refused_with_number_and_remedy(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", num_labels=2)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["playlist_x"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"has 1 more token than .* rows: 'playlist_x'.*resize_token_embeddings"):
        load_tokenizer(folder)


@pytest.mark.parametrize("longest", [6, 10**30])
def test_stored_truncation_and_padding_give_way_to_what_was_measured(tmp_path: Path, longest: int) -> None:
    folder = save_tiny(tmp_path / "model", num_labels=2)
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole.enable_truncation(3, strategy="only_first", stride=1)
    whole.enable_padding(length=12, direction="left", pad_token="[PAD]")
    whole.save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    tokenizer.model_max_length = longest
    save_model(load_model(folder), tokenizer, tmp_path / "saved")
    alone, again = Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json")), load_tokenizer(tmp_path / "saved")
    text = "the film was good and the plot was so very bad"
    measured = tokenize(Split((text, "good"), None), again, min(longest, 512))
    rows = [
        measured.columns["input_ids"][a:b].tolist()
        for a, b in zip(measured.offsets, measured.offsets[1:], strict=False)
    ]
    assert [alone.encode(row).ids for row in (text, "good")] == rows
    assert len(rows[0]) == min(longest, 13)
    assert alone.padding is None
    assert not {"max_length", "stride", "truncation_strategy"} & set(
        json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    ), "a limit beside the measured one"


@pytest.mark.parametrize("longest", ["many", 0, True, None])
def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, longest: object) -> None:
    folder = save_tiny(tmp_path / "model", num_labels=2)
    change(folder / "tokenizer_config.json", model_max_length=longest)
    if longest is None:  # transformers takes it for no limit
        assert load_tokenizer(folder).model_max_length > 10**9
        return
    with pytest.raises(ModelError, match="model_max_length"):
        load_tokenizer(folder)


def other_pieces() -> PreTrainedTokenizerFast:
    """Return a tokenizer with as many pieces as the tiny one, two of them in each other's place."""
    tokenizer = tiny_tokenizer()
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    numbers = whole["model"]["vocab"]
    numbers["good"], numbers["bad"] = numbers["bad"], numbers["good"]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(whole))
    return tokenizer


def test_tokens_are_the_same_only_where_every_text_gets_the_same_numbers() -> None:
    cased = tiny_tokenizer()
    cased.backend_tokenizer.normalizer = BertNormalizer(lowercase=False)
    assert same_tokens(tiny_tokenizer(), tiny_tokenizer("distilbert", 16))
    assert not same_tokens(tiny_tokenizer(), other_pieces())
    assert not same_tokens(tiny_tokenizer(), cased)
