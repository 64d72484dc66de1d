"""Weights and features that transformers would drop or make up are refused, whole models are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from compress.cli.export import recipe_for
from compress.data.dataset import Dataset, Split
from compress.errors import ModelError
from compress.families.language_head import load_language_model
from compress.models.loading import check_trained, load_config, load_masked_lm, load_model, load_tokenizer, quiet
from compress.run.bench import bench_paths
from compress.run.predict import predict
from compress.tasks.classification import Classification
from compress.teachers.model import FineTune, Teacher
from tests.conftest import VOCABULARY, save_tiny, tiny_tokenizer

DISTANCES = "bert.encoder.layer.{}.attention.self.distance_embedding.weight"
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 32, "max_position_embeddings": 64,
}  # fmt: skip


def change_config(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_weights(folder: Path, changed: dict[str, torch.Tensor], without: tuple[str, ...] = ()) -> None:
    path = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if name not in without} | changed
    save_file(weights, path, metadata={"format": "pt"})


def rows_of(*labels: str) -> Dataset:
    """Return a data set with a row for each label."""
    rows = Split(list(labels), None, np.arange(len(labels)))
    return Dataset("rows", Classification(labels), rows, rows, rows)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "classifier", num_labels=2)


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "pretrained")


@pytest.mark.parametrize("named", [True, False], ids=["named in config.json", "in the weights only"])
def test_relative_positions_of_transformers_4_are_refused_with_weight_count_and_reason(
    classifier: Path, named: bool
) -> None:
    change_weights(classifier, {DISTANCES.format(layer): torch.randn(127, 4) for layer in range(4)})
    if named:
        change_config(classifier, position_embedding_type="relative_key")
    for load in (load_config, load_model):
        with pytest.raises(
            ModelError, match=r"layer\.0\.attention\.self\.distance_embedding\.weight and 3 more.*relative"
        ):
            load(classifier)


def test_an_encoder_saved_alone_with_relative_positions_is_refused_for_fine_tuning_too(pretrained: Path) -> None:
    name = DISTANCES.format(1).removeprefix("bert.")
    change_weights(pretrained, {name: torch.randn(127, 4)})
    for load in (load_config, lambda folder: load_model(folder, head={"num_labels": 3})):
        with pytest.raises(ModelError, match="distance_embedding"):
            load(pretrained)


def test_a_position_type_that_is_left_out_is_refused_without_its_weights(classifier: Path) -> None:
    change_config(classifier, position_embedding_type="relative_key")
    with pytest.raises(ModelError, match="position_embedding_type = 'relative_key'"):
        load_config(classifier)


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForPreTraining], ids=lambda kind: kind.__name__)
def test_heads_of_pretraining_are_dropped_for_fine_tuning(tmp_path: Path, kind: type[PreTrainedModel]) -> None:
    with quiet():
        kind(BertConfig(**SIZES)).save_pretrained(tmp_path)
    assert load_config(tmp_path).model_type == "bert"
    assert load_model(tmp_path, head={"num_labels": 3}).config.num_labels == 3
    assert load_masked_lm(tmp_path) is not None
    with pytest.raises(ModelError, match=r"lack bert\.pooler|lack classifier"):
        load_model(tmp_path)


def test_a_pooler_that_no_classifier_of_the_family_reads_is_dropped(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "roberta", "roberta", num_labels=2)
    before = load_model(folder)
    change_weights(folder, {"roberta.pooler.dense.weight": torch.randn(16, 16), "lm_head.bias": torch.randn(21)})
    ids = torch.tensor([[2, 7, 8, 3]])
    torch.testing.assert_close(load_model(folder)(ids).logits, before(ids).logits)


def test_weights_of_an_unknown_head_are_refused_where_the_head_must_be_there(classifier: Path) -> None:
    change_weights(classifier, {"gate.weight": torch.randn(2, 2), "gate.bias": torch.randn(2)})
    with pytest.raises(ModelError, match=r"hold gate\.bias and 1 more"):
        load_model(classifier)
    with pytest.raises(ModelError, match=r"gate\.bias"):
        check_trained(classifier, load_config(classifier))
    assert load_model(classifier, head={"num_labels": 3}) is not None


def test_shapes_that_differ_are_named_with_layer_and_both_shapes(classifier: Path) -> None:
    change_config(classifier, intermediate_size=64)
    for load in (load_config, load_model, lambda folder: load_model(folder, head={"num_labels": 3})):
        with pytest.raises(ModelError, match=r"bert\.encoder\.layer\.0\.intermediate\.dense\.bias.*shape 32.*it is 64"):
            load(classifier)


def test_a_head_of_another_shape_is_new_only_where_it_is_trained(classifier: Path) -> None:
    assert load_model(classifier, head={"num_labels": 5}).config.num_labels == 5
    with pytest.raises(ModelError, match=r"classifier\.bias.*shape 2,.*it is 5"):
        load_model(classifier, head={"num_labels": 5}, trained=True)


def test_a_classifier_without_its_head_is_refused_before_work(classifier: Path) -> None:
    change_weights(classifier, {}, without=("classifier.weight", "classifier.bias"))
    teacher = Teacher(model=str(classifier), fine_tune=FineTune.never, max_tokens=32)
    with pytest.raises(ModelError, match=r"lack classifier\.bias and 1 more"):
        teacher.inspect(rows_of("LABEL_0", "LABEL_1"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(classifier: Path, value: float) -> None:
    weight = load_file(classifier / "model.safetensors")["bert.encoder.layer.2.output.dense.weight"]
    weight[3, 4] = value
    change_weights(classifier, {"bert.encoder.layer.2.output.dense.weight": weight})
    for load in (load_config, load_model):
        with pytest.raises(
            ModelError, match=r"not finite: bert\.encoder\.layer\.2\.output\.dense\.weight has 1 of 512"
        ):
            load(classifier)


def test_large_finite_weights_are_taken(classifier: Path) -> None:
    change_weights(classifier, {"classifier.weight": torch.full((2, 16), 3e38)})
    assert load_config(classifier).num_labels == 2


def test_a_language_model_with_foreign_weights_is_refused(tmp_path: Path) -> None:
    with quiet():
        BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path)
    change_weights(tmp_path, {DISTANCES.format(0): torch.randn(127, 4)})
    for load in (load_masked_lm, load_language_model):
        with pytest.raises(ModelError, match="distance_embedding"):
            load(tmp_path)


OTHERS = {
    "encoder-decoder": lambda: BartForSequenceClassification(
        BartConfig(
            vocab_size=21, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=16,
        )
    ),
    "type t5 is an encoder-decoder": lambda: T5ForSequenceClassification(
        T5Config(vocab_size=21, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    ),
    "reads from left to right": lambda: GPT2ForSequenceClassification(
        GPT2Config(vocab_size=21, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=1)
    ),
    "is not a text classifier": lambda: ViTForImageClassification(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    ),
    "is_decoder = true": lambda: RobertaForMaskedLM(RobertaConfig(**SIZES, is_decoder=True)),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_are_refused_by_what_they_are(tmp_path: Path, kind: str) -> None:
    with quiet():
        OTHERS[kind]().save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=kind) as failure:
        Teacher(model=str(tmp_path)).inspect(rows_of("bad", "good"))
    assert "\n" not in str(failure.value)
    for refuse in (
        lambda: recipe_for(str(tmp_path), ["data=files", "data.train=rows.tsv"]),
        lambda: predict(tmp_path, "a good film"),
        lambda: bench_paths([tmp_path], [1], [8], 1),
    ):
        with pytest.raises(ModelError, match=kind):
            refuse()


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"hidden_act": "gelu_of_tomorrow"}, "hidden_act = 'gelu_of_tomorrow'.*not an activation"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized, by gptq"),
        ({"auto_map": {"AutoModel": "modeling.Other"}}, "ships its own code"),
        ({"hidden_size": -16}, "hidden_size = -16"),
        ({"num_hidden_layers": 10**9}, r"config\.json: num_hidden_layers = 1000000000"),
        ({"num_hidden_layers": 9}, r"lack bert\.encoder\.layer\.4"),
        ({"vocab_size": 10**9}, r"word_embeddings\.weight.*it is 1000000000 × 16"),
        ({"hidden_size": 10**9}, "config.json|shape"),
        ({"_num_labels": 10**9}, r"config\.json: _num_labels"),
        ({"architectures": 3}, "architectures"),
        ({"model_type": "bert_of_tomorrow"}, "config.json"),
        ({"layer_norm_eps": float("nan")}, "config.json: holds NaN"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_config_entries_that_would_change_or_break_the_model_are_refused_by_name(
    classifier: Path, entries: dict[str, Any], match: str
) -> None:
    change_config(classifier, **entries)
    with pytest.raises(ModelError, match=match):
        load_config(classifier)


def test_adapters_that_were_not_merged_are_refused(classifier: Path) -> None:
    (classifier / "adapter_config.json").write_text("{}")
    for load in (load_config, load_model):
        with pytest.raises(ModelError, match="merge_and_unload"):
            load(classifier)


def test_an_index_that_names_what_is_not_there_is_refused(classifier: Path) -> None:
    names = list(load_file(classifier / "model.safetensors"))
    (classifier / "model.safetensors").rename(classifier / "model-00001-of-00001.safetensors")
    index = classifier / "model.safetensors.index.json"
    for entries, match in (
        ({"weight_map": dict.fromkeys(names, "model-00002.safetensors")}, "which is not in the folder"),
        ({"weight_map": {"other": "model-00001-of-00001.safetensors"}}, "holds other, and it does not"),
        ({"weight_map": []}, "weight_map"),
        ([], "holds a list"),
    ):
        index.write_text(json.dumps(entries))
        with pytest.raises(ModelError, match=rf"index\.json: .*{match}"):
            load_config(classifier)
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")})
    )
    assert load_model(classifier) is not None
    assert load_tokenizer(classifier) is not None


def test_what_no_answer_depends_on_may_be_left_over(classifier: Path) -> None:
    before = load_model(classifier)
    types = torch.zeros(1, 64, dtype=torch.int64)
    change_weights(classifier, {
        "loss_fct.weight": torch.tensor([1.0, 3.0]), "criterion.weight": torch.ones(2), "ce_loss.weight": torch.ones(2),
        "bert.embeddings.token_type_ids": types, "bert.embeddings.kinds": types.clone(),
    })  # fmt: skip
    check_trained(classifier, load_config(classifier))
    ids = torch.tensor([[2, 7, 8, 3]])
    torch.testing.assert_close(load_model(classifier)(ids).logits, before(ids).logits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gloss.weight", torch.ones(2)),
        ("bert.embeddings.scale", torch.ones(1)),
        ("bert.encoder.layer.0.output.dense.qweight", torch.ones(4, dtype=torch.int8)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_left_over_weights_that_may_change_answers_are_refused(
    classifier: Path, name: str, value: torch.Tensor
) -> None:
    change_weights(classifier, {name: value})
    with pytest.raises(ModelError, match=f"hold {name}"):
        load_model(classifier)
