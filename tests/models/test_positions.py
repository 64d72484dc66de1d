"""The longest row of every family, against the family's own embeddings, and through a graph and a reload."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from compress.data.dataset import Split
from compress.errors import ModelError
from compress.families.forms.uneven import shrink
from compress.models.ensemble import ensemble
from compress.models.loading import load_config, load_model, load_tokenizer, quiet, save_model
from compress.models.positions import longest_row
from compress.models.tokens import tokenize
from compress.onnx.folder import MODEL, with_tokenizer
from compress.onnx.graph import input_names, write_onnx
from compress.run.predict import predict
from compress.runtimes.registry import load_session
from compress.runtimes.rows import one_by_one
from compress.student.cnn import CnnConfig
from tests.conftest import GOOD, VOCABULARY, tiny_model, tiny_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 32, "max_position_embeddings": 24,
}  # fmt: skip
OFFSET = ("roberta", "camembert", "xlm-roberta", "mpnet")  # positions start behind the padding's number
PLAIN = ("bert", "electra", "distilbert", "albert", "mobilebert", "squeezebert", "ernie")


def model_of(family: str, **settings: Any) -> PreTrainedModel:
    with quiet():
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **SIZES, **settings)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


@pytest.mark.parametrize("family", [*OFFSET, *PLAIN])
def test_a_row_of_the_longest_length_runs_and_one_token_more_does_not(family: str) -> None:
    padding = 1 if family in OFFSET else 0
    settings = {"embedding_size": 16} if family in ("albert", "squeezebert", "mobilebert") else {}
    model = model_of(family, pad_token_id=padding, **settings)
    longest = longest_row(model.config)
    assert longest == (24 - padding - 1 if family in OFFSET else 24)
    model(input_ids=torch.full((1, longest), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 7))


@pytest.mark.parametrize("family", ["deberta-v2", "modernbert"])
def test_without_a_table_it_is_the_configured_number(family: str) -> None:
    settings: dict[str, Any] = {"relative_attention": True, "position_biased_input": False} if "deb" in family else {}
    config = AutoConfig.for_model(family, **SIZES, pad_token_id=0, **settings)
    assert longest_row(config) == 24
    assert longest_row(CnnConfig(max_position_embeddings=77)) == 77


def test_a_composite_takes_what_each_of_its_models_takes_and_pruning_changes_nothing() -> None:
    first, second = tiny_model(), tiny_model("roberta")
    joined = ensemble(
        [first, second], [[0, 1]] * 2, {"num_labels": 2}, combine="logits", weights=[1, 1], chosen=1
    )  # fmt: skip
    assert (longest_row(first.config), longest_row(second.config)) == (64, 65)
    assert longest_row(joined.config) == 64
    assert longest_row(shrink(second, heads=[[0], [1, 2], [0, 1, 2, 3], [3]]).config) == 65


def test_the_probe_is_quick_and_leaves_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    longest_row(AutoConfig.for_model("camembert", vocab_size=40000))  # imports the family's module
    start = time.perf_counter()
    assert longest_row(AutoConfig.for_model("camembert", vocab_size=32005, pad_token_id=1)) == 510
    assert time.perf_counter() - start < 0.5
    assert torch.equal(before, torch.get_rng_state())


def test_sizes_that_no_memory_holds_are_refused_before_they_are_allocated() -> None:
    with pytest.raises(ModelError, match=r"weights\. Correct the sizes"):
        longest_row(AutoConfig.for_model("bert", hidden_size=120_000, num_attention_heads=1))


@pytest.mark.parametrize("family", ["camembert", pytest.param("mpnet", marks=pytest.mark.slow)])
def test_long_rows_are_cut_at_the_true_limit_in_graph_and_reloaded_model(tmp_path: Path, family: str) -> None:
    model, tokenizer = model_of(family, pad_token_id=1), tiny_tokenizer("roberta", 512)
    tokenizer.pad_token = "[UNK]"  # number 1, as in these families
    folder, graph = tmp_path / "model", tmp_path / "graph"
    save_model(model, tokenizer, folder)
    own = load_tokenizer(folder)
    longest = longest_row(load_config(folder))
    tokens = tokenize(Split((" ".join(GOOD * 20), "good film")), own, longest)
    assert tokens.lengths.tolist() == [22, 4]
    graph.mkdir()
    write_onnx(load_model(folder), input_names(own), graph / MODEL)
    with_tokenizer(folder, graph, pairs=False)
    answers = [one_by_one(load_session(place), tokens) for place in (folder, graph)]
    np.testing.assert_allclose(*answers, atol=1e-4)
    replies = [predict(place, [" ".join(GOOD * 20)])[0]["probabilities"] for place in (folder, graph)]
    for label, probability in replies[0].items():
        assert replies[1][label] == pytest.approx(probability, abs=1e-4)
