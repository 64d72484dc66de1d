"""MobileBERT students: sizes, what they start from, padding, saving, ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from compress.families.registry import can_be_taken_apart
from compress.known import Known
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, SCORES
from compress.onnx.graph import write_onnx
from compress.student.base import Material
from compress.student.mobile import Mobile, Normalization
from tests.conftest import LIKE_BERT, tiny_batch, tiny_model, tiny_tokenizer
from tests.student.reloading import check_reloading


@pytest.mark.parametrize("family", LIKE_BERT)
@torch.no_grad()
def test_states_and_scores_of_every_layer_compare_with_the_teachers(family: str) -> None:
    teacher, batch = tiny_model(family), tiny_batch(family=family)
    seen = observe(Mobile().build(teacher), batch, HIDDEN, SCORES)
    known = observe(teacher, batch, HIDDEN, SCORES)
    assert {layer: state.shape for layer, state in seen[HIDDEN].items()} == {
        layer: state.shape for layer, state in known[HIDDEN].items()
    }
    assert {layer: state.shape for layer, state in seen[SCORES].items()} == {
        layer: state.shape for layer, state in known[SCORES].items()
    }
    assert len({float(state.sum()) for state in seen[SCORES].values()}) == 4


def test_sizes_follow_the_teacher_or_the_settings() -> None:
    teacher = tiny_model().config
    config = Mobile().config(teacher)
    assert (config.hidden_size, config.intra_bottleneck_size, config.intermediate_size) == (16, 4, 16)
    assert (config.num_hidden_layers, config.num_attention_heads, config.embedding_size) == (4, 4, 4)
    config = Mobile(layers=2, bottleneck=6, heads=2, feed_forward_networks=3, intermediate_size=10).config(teacher)
    assert (config.teacher_layers, config.true_hidden_size, config.num_feedforward_networks) == ([2, 4], 6, 3)
    assert not can_be_taken_apart(config)
    student = Mobile(layers=2, bottleneck=8, heads=2, narrow_attention=True).build(tiny_model())
    layer = student.mobilebert.encoder.layer[0]
    assert layer.attention.self.value.in_features == 8
    assert len(layer.ffn) == 3


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@torch.no_grad()
def test_embeddings_of_full_rank_are_the_teachers(family: str) -> None:
    teacher, batch = tiny_model(family), tiny_batch(family=family)
    whole: dict[str, Any] = {"normalization": Normalization.layer_norm, "embedding_size": 16}
    real = batch["attention_mask"].bool()
    for student in (Mobile(**whole), Mobile(**whole, trigram=False)):
        ours = observe(student.build(teacher), batch, HIDDEN)[HIDDEN][0][real]
        torch.testing.assert_close(ours, observe(teacher, batch, HIDDEN)[HIDDEN][0][real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", LIKE_BERT)
@torch.no_grad()
def test_without_normalisation_embeddings_start_where_its_mean_effect_puts_them(family: str) -> None:
    teacher, batch = tiny_model(family), tiny_batch(family=family)
    real = batch["attention_mask"].bool()
    theirs = observe(teacher, batch, HIDDEN)[HIDDEN][0][real]
    ours = observe(Mobile(embedding_size=16).build(teacher), batch, HIDDEN)[HIDDEN][0][real]
    assert float(((ours - theirs) ** 2).mean() / theirs.var()) < 0.25
    random = Mobile(embedding_size=16, copy_weights=False).build(teacher)
    lost = observe(random, batch, HIDDEN)[HIDDEN][0][real]
    assert float(((lost - theirs) ** 2).mean() / theirs.var()) > 0.5


@pytest.mark.parametrize(("family", "copied"), [("bert", True), ("roberta", True), ("distilbert", False)])
def test_the_head_starts_from_a_teachers_that_computes_the_same(family: str, copied: bool) -> None:
    teacher = tiny_model(family)
    student = Mobile().build(teacher)
    theirs = teacher.classifier.out_proj if family == "roberta" else teacher.classifier
    dense = {"bert": "bert.pooler.dense", "roberta": "classifier.dense", "distilbert": "pre_classifier"}[family]
    assert torch.equal(student.classifier.weight, theirs.weight) is copied
    assert torch.equal(student.mobilebert.pooler.dense.weight, teacher.get_submodule(dense).weight) is copied


@pytest.mark.parametrize("normalization", Normalization)
def test_padding_never_changes_logits_also_after_training(normalization: Normalization) -> None:
    """A trigram at the end of a text sees the padding word, whose embedding the teacher had trained."""
    teacher, batch = tiny_model(), tiny_batch()
    assert teacher.bert.embeddings.word_embeddings.weight[0].any()
    student = Mobile(normalization=normalization).build(teacher, Material(tiny_tokenizer(), tiny_tokenizer(), False))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        observe(student, batch).logits.square().sum().backward()
        optimizer.step()
    with torch.no_grad():
        together = observe(student, batch).logits
        for row in range(3):
            length = int(batch["attention_mask"][row].sum())
            alone = {name: value[row : row + 1, :length] for name, value in batch.items() if value.dim() == 2}
            torch.testing.assert_close(observe(student, alone).logits[0], together[row])


def test_it_reloads_to_the_bit_in_a_fresh_process(tmp_path: Path) -> None:
    check_reloading({family: Mobile().build(tiny_model(family)) for family in ("bert", "roberta")}, tmp_path)


@torch.no_grad()
def test_onnx_says_what_pytorch_says(tmp_path: Path) -> None:
    student, batch = Mobile().build(tiny_model()), tiny_batch()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    write_onnx(student, names, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for rows in (slice(0, 3), slice(0, 1)):
        outputs = session.run(None, {name: batch[name][rows].numpy() for name in names})[0]
        part = {name: value[rows] for name, value in batch.items()}
        np.testing.assert_allclose(outputs, observe(student, part).logits.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("student", "setting"),
    [
        (Mobile(layers=5), "layers"),
        (Mobile(layers=2, layer_map=[1, 9]), "layer_map"),
        (Mobile(bottleneck=6), "bottleneck"),
        (Mobile(embedding_size=17), "embedding_size"),
    ],
)
def test_what_does_not_fit_the_teacher_is_refused(student: Mobile, setting: str) -> None:
    assert [fault.setting for fault in student.faults(Known(teacher=tiny_model().config))] == [setting]


def test_trigrams_need_a_padding_word() -> None:
    teacher = tiny_model(pad_token_id=None).config
    assert [fault.setting for fault in Mobile().faults(Known(teacher=teacher))] == ["trigram"]
    assert not list(Mobile(trigram=False).faults(Known(teacher=teacher)))
