"""Families beyond the first four: what transformers says, what is left after pruning, what is stored and served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from compress.distill.losses.base import LOSSES
from compress.distill.stage import Distill
from compress.errors import ModelError
from compress.families.forms.uneven import shrink
from compress.families.registry import FAMILIES, can_be_taken_apart, family_of, remarks
from compress.known import Known
from compress.models.loading import load_config, load_model, load_tokenizer, quiet, save_model
from compress.models.outputs import INPUTS, observe
from compress.models.positions import longest_row
from compress.models.quantities import HIDDEN, KEYS, QUERIES, RELATIONS, SCORES, VALUES
from compress.models.stated import state_family
from compress.onnx.graph import write_onnx
from compress.prune.budget import Budget
from compress.prune.width import PruneWidth, narrow
from compress.runtimes.onnxruntime import inference_session
from compress.student.bert import Bert
from compress.teachers.model import Teacher
from tests.conftest import (
    LATER_FAMILIES,
    UNLIKE_BERT,
    VOCABULARY,
    save_tiny,
    tiny_batch,
    tiny_model,
    tiny_tokenizer,
)
from tests.student.test_start import a_state

HEADS = [[0, 2], [1], [0, 1, 2, 3], [3]]
LIKE_OTHERS = ("xlm-roberta", "camembert", "ernie")  # RoBERTa's layout and BERT's
OTHERS_LATER = [pytest.param(name, marks=pytest.mark.slow) if name in LIKE_OTHERS else name for name in LATER_FAMILIES]
UNITS = [[0, 5, 31], list(range(32)), [7], [1, 2, 3, 30]]


def batches(family: str) -> list[dict[str, torch.Tensor]]:
    """Return one row, padded rows, rows of the full length, and pairs, where the family tells two texts apart."""
    made = [tiny_batch(1, 5, 1, family), tiny_batch(3, 9, 2, family), tiny_batch(2, 64, 3, family)]
    if "token_type_ids" in made[1]:
        pairs = dict(made[1])
        pairs["token_type_ids"] = (torch.arange(9) > 3).long().expand(3, 9) * pairs["attention_mask"]
        made.append(pairs)
    return made


def inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in INPUTS if name in batch}


@pytest.mark.parametrize("family", LATER_FAMILIES)
@torch.no_grad()
def test_what_is_observed_is_what_transformers_computes(family: str) -> None:
    model = tiny_model(family)
    model.set_attn_implementation("eager")
    for batch in batches(family):
        seen = observe(model, batch, HIDDEN, SCORES, QUERIES, KEYS, VALUES)
        plain = model(**inputs(batch), output_hidden_states=True, output_attentions=True)
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(seen.logits, plain.logits, rtol=0, atol=1e-5)
        for layer, states in enumerate(plain.hidden_states):
            torch.testing.assert_close(seen[HIDDEN][layer][real], states[real], rtol=0, atol=1e-5)
        assert sorted(seen[SCORES]) == sorted(seen[QUERIES]) == sorted(seen[VALUES]) == [1, 2, 3, 4]
        for layer, weights in enumerate(plain.attentions, start=1):
            ours = seen[SCORES][layer].masked_fill(weights == 0, -torch.inf).softmax(-1)  # nothing far away, no padding
            torch.testing.assert_close(*(part.transpose(1, 2)[real] for part in (ours, weights)), rtol=0, atol=1e-5)


@torch.no_grad()
def test_queries_keys_and_values_of_deberta_are_those_of_content() -> None:
    model, batch = tiny_model("deberta-v2"), tiny_batch(family="deberta-v2")
    seen = observe(model, batch, HIDDEN, *RELATIONS)
    for index, layer in enumerate(FAMILIES["deberta-v2"].layers(model), start=1):
        attention = cast("Any", layer).attention.self
        for quantity, name in zip(RELATIONS, ("query", "key", "value"), strict=True):
            torch.testing.assert_close(
                seen[quantity][index], getattr(attention, f"{name}_proj")(seen[HIDDEN][index - 1])
            )


@torch.no_grad()
def test_queries_and_keys_of_modernbert_are_turned_by_their_positions_and_give_the_scores() -> None:
    model, batch = tiny_model("modernbert"), tiny_batch(family="modernbert")
    seen = observe(model, batch, HIDDEN, SCORES, *RELATIONS)
    for index, layer in enumerate(FAMILIES["modernbert"].layers(model), start=1):
        part = cast("Any", layer)
        query, key, value = part.attn.Wqkv(part.attn_norm(seen[HIDDEN][index - 1])).chunk(3, dim=-1)
        torch.testing.assert_close(seen[VALUES][index], value)
        for quantity, plain in ((QUERIES, query), (KEYS, key)):
            torch.testing.assert_close(seen[quantity][index][:, 0], plain[:, 0])  # the first position turns nothing
            torch.testing.assert_close(seen[quantity][index].norm(dim=-1), plain.norm(dim=-1))
        heads = [seen[quantity][index].unflatten(2, (4, 4)).transpose(1, 2) for quantity in (QUERIES, KEYS)]
        torch.testing.assert_close(seen[SCORES][index], heads[0] @ heads[1].transpose(2, 3) / 2)


@pytest.mark.parametrize("family", UNLIKE_BERT)
def test_every_loss_on_layers_teaches_it(family: str, tmp_path: Path) -> None:
    state = a_state(tmp_path, family)
    student = Bert(layers=2, start="random")(state).given_student
    losses = {name: LOSSES[name]() for name in ("patient", "cosine", "relations", "minilm", "hidden", "embeddings")}
    losses |= {name: LOSSES[name]() for name in ("attention", "attention_probabilities", "attention_transfer")}
    trained = Distill(losses=losses, epochs=30, batch_size=8, learning_rate=3e-3).train(state, student)
    points = [point for point in trained.record["curves"] if "loss" in point]
    for name in losses:
        course = [point[name] for point in points]
        assert np.isfinite(course).all()
        assert np.mean(course[-5:]) < np.mean(course[:5]), (name, course)


@pytest.mark.parametrize("family", OTHERS_LATER)
@torch.no_grad()
def test_a_pruned_and_narrowed_model_is_stored_loaded_and_exported_to_the_same_answers(
    family: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch_pruning")
    model = shrink(tiny_model(family), heads=HEADS, units=UNITS, layers=[1, 2, 3])
    if FAMILIES[family].loses_channels:
        model = narrow(model, [0, 1, 2, 5, 7, 11, 13, 15])
    tokenizer = tiny_tokenizer(family)
    save_model(model, tokenizer, tmp_path)
    names = [name for name in INPUTS if name in tokenizer.model_input_names]
    write_onnx(model, names, tmp_path / "model.onnx")
    session = inference_session(tmp_path / "model.onnx", 1)
    with quiet():
        again: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(again) is type(load_model(tmp_path)) is type(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    for batch in batches(family):
        expected = observe(model, batch).logits
        # products with one row are rounded by where its weights lie in memory
        torch.testing.assert_close(observe(again, batch).logits, expected, rtol=0, atol=1e-7 * (len(expected) == 1))
        feed = {name: batch[name].numpy() for name in names}
        np.testing.assert_allclose(session.run(["logits"], feed)[0], expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", LATER_FAMILIES)
@torch.no_grad()
def test_a_student_by_layers_is_its_teachers_layers_and_a_narrower_one_runs(family: str) -> None:
    teacher, batch = tiny_model(family), tiny_batch(family=family)
    student = Bert(layers=2, layer_map=[1, 3]).build(teacher)
    assert type(student) is type(teacher)
    layers = family_of(teacher.config).layers(teacher)
    with family_of(teacher.config).running(teacher, [layers[0], layers[2]]):
        torch.testing.assert_close(observe(student, batch).logits, observe(teacher, batch).logits)
    narrower = Bert(layers=2, hidden_size=8, heads=2, intermediate_size=12).build(teacher)
    assert observe(narrower, batch, HIDDEN, SCORES)[SCORES][2].shape == (3, 2, 9, 9)


@torch.no_grad()
def test_scores_of_mpnet_hold_its_bias_of_positions_and_pruned_heads_keep_their_own() -> None:
    model, batch = tiny_model("mpnet"), tiny_batch(family="mpnet")
    whole = observe(model, batch, HIDDEN, SCORES, QUERIES, KEYS)
    query, key = (whole[part][1].view(3, 9, 4, 4).transpose(1, 2) for part in (QUERIES, KEYS))
    encoder = model.base_model.encoder
    places = torch.arange(9)
    buckets = encoder.relative_position_bucket(places[None, :] - places[:, None])
    bias = encoder.relative_attention_bias(buckets).permute(2, 0, 1)
    torch.testing.assert_close(whole[SCORES][1], query @ key.transpose(2, 3) / 2 + bias)
    pruned = observe(shrink(model, heads=HEADS), batch, SCORES)
    torch.testing.assert_close(pruned[SCORES][1], whole[SCORES][1][:, [0, 2]])


@torch.no_grad()
def test_layers_of_modernbert_keep_their_reach_and_the_first_its_normalisation() -> None:
    model, batch = tiny_model("modernbert"), tiny_batch(family="modernbert")
    reaches = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert model.config.layer_types == reaches
    smaller = shrink(model, layers=[1, 3])
    assert smaller.config.layer_types == [reaches[1], reaches[3]]
    assert isinstance(smaller.base_model.layers[0].attn_norm, nn.LayerNorm)
    assert isinstance(shrink(smaller, layers=[0]).base_model.layers[0].attn_norm, nn.LayerNorm)
    assert isinstance(shrink(model, layers=[0, 3]).base_model.layers[0].attn_norm, nn.Identity)
    assert Bert(layers=2).build(model).config.layer_types == [reaches[1], reaches[3]]
    far, near = tiny_batch(1, 30, 1, "modernbert"), tiny_batch(1, 30, 1, "modernbert")
    near["input_ids"] = near["input_ids"].clone()
    near["input_ids"][0, 20] = 5 if near["input_ids"][0, 20] != 5 else 6
    local = shrink(model, layers=[1])
    states = [observe(local, row, HIDDEN)[HIDDEN][1][0] for row in (far, near)]
    changed = (states[0] != states[1]).any(-1).nonzero().flatten().tolist()
    assert changed == list(range(17, 24))  # three tokens on either side see it
    assert observe(smaller, batch).logits.shape == (3, 2)


def test_a_modernbert_without_a_global_layer_is_told() -> None:
    config = tiny_model("modernbert").config
    assert remarks(config) == ()
    (note,) = remarks(shrink(tiny_model("modernbert"), layers=[1, 2]).config)
    assert note == "no global layer is left: none attends to more than 3 tokens on either side of a token"
    assert remarks(Bert(layers=2, layer_map=[2, 3]).config(config)) == (note,)
    assert remarks(Bert(layers=2, layer_map=[1, 2]).config(config)) == ()


def test_what_disentangled_attention_cannot_do_is_refused_before_work() -> None:
    config = tiny_model("deberta-v2").config
    for change, feature in (({"share_att_key": False}, "share_att_key"), ({"conv_kernel_size": 3}, "a convolution")):
        other = type(config)(**(config.to_dict() | change))
        assert not can_be_taken_apart(other)
        with pytest.raises(ModelError, match=f"deberta-v2 models with {feature}.*compress export takes any classifier"):
            family_of(other)
    faults = [str(fault) for fault in Budget(speedup=2.0).faults(Known(student=config))]
    assert any("cannot time other sizes of a student of type deberta-v2" in fault for fault in faults)
    assert not [fault for fault in Budget(parameters=1000).faults(Known(student=config)) if "time" in str(fault)]
    pytest.importorskip("torch_pruning")
    (fault,) = PruneWidth().faults(Known(student=config))
    assert "cannot remove hidden channels from a student of type deberta-v2" in str(fault)


@pytest.mark.slow
@torch.no_grad()
def test_a_pruned_modernbert_reads_rows_of_8192_tokens_as_the_whole_one_with_those_heads_silenced() -> None:
    model, row = tiny_model("modernbert"), tiny_batch(1, 8192, 1, "modernbert")
    model.config.max_position_embeddings = 8192
    assert longest_row(model.config) == 8192
    smaller = shrink(model, heads=HEADS)
    for layer, heads in zip(family_of(model.config).layers(model), HEADS, strict=True):
        gone = [head * 4 + place for head in range(4) if head not in heads for place in range(4)]
        family_of(model.config).attention_output(layer).weight[:, gone] = 0
    torch.testing.assert_close(observe(smaller, row).logits, observe(model, row).logits, rtol=0, atol=1e-5)


# folders whose own files do not say what they are


def edited(folder: Path, to: Path, file: str, **entries: Any) -> Path:
    """Return a copy of a folder with other entries in a JSON file; None removes one."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    found = json.loads((to / file).read_text()) | entries
    (to / file).write_text(json.dumps({name: value for name, value in found.items() if value is not None}))
    return to


def test_a_stated_family_stands_in_for_types_and_tokenizer_classes_that_are_missing_or_wrong(tmp_path: Path) -> None:
    whole = save_tiny(tmp_path / "whole")
    kept = load_tokenizer(whole)("good film")["input_ids"]
    old = edited(whole, tmp_path / "no-type", "config.json", model_type=None)
    (old / "tokenizer.json").unlink()
    (old / "tokenizer_config.json").unlink()
    (old / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    cases = [
        old,
        edited(whole, tmp_path / "wrong-type", "config.json", model_type="roberta"),
        edited(whole, tmp_path / "no-such-type", "config.json", model_type="rbt3"),
        edited(whole, tmp_path / "wrong-class", "tokenizer_config.json", tokenizer_class="XLMRobertaTokenizer"),
    ]
    for folder in cases:
        assert Teacher(model=str(folder), family="bert").source() == str(folder)
        model = load_model(folder, head={"num_labels": 2})
        assert load_config(folder).model_type == model.config.model_type == "bert"
        assert load_tokenizer(folder)("good film")["input_ids"] == kept
        words = load_model(whole, head={"num_labels": 2}).get_input_embeddings().weight
        assert torch.equal(model.get_input_embeddings().weight, words)
        state_family(folder, None)
    with pytest.raises(ModelError, match=r"model_type is missing.*teacher\.family=bert"):
        load_config(old)


def test_a_family_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    (fault,) = [fault for fault in Teacher(model=str(tmp_path), family="bret").faults() if fault.setting == "family"]
    assert "Did you mean bert?" in str(fault)
