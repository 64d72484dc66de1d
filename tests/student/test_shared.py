"""Students that share layers: what is shared is one tensor, everywhere, and computes what copies would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic
from safetensors import safe_open
from transformers import BertConfig, BertForSequenceClassification

from compress.families.forms.shared import shared_parts
from compress.families.forms.uneven import shrink
from compress.families.registry import FAMILIES, can_be_taken_apart
from compress.known import Known
from compress.models.outputs import observe, parameters
from compress.models.quantities import HIDDEN, SCORES
from compress.onnx.graph import write_onnx
from compress.student.shared import LayerStart, Share, Shared
from tests.conftest import FAMILY_NAMES, LIKE_BERT, tiny_batch, tiny_model
from tests.student.reloading import check_reloading


@pytest.mark.parametrize("start", LayerStart)
@pytest.mark.parametrize("share", Share)
@pytest.mark.parametrize("family", LIKE_BERT)
@torch.no_grad()
def test_it_computes_what_a_plain_model_with_copies_computes(family: str, share: Share, start: LayerStart) -> None:
    teacher, batch = tiny_model(family), tiny_batch(family=family)
    student = Shared(share=share, start=start, embedding_size=0).build(teacher)
    layers = FAMILIES[family].layers(teacher)
    for part in shared_parts(FAMILIES[family], share.value):
        modules = [layer.get_submodule(part) for layer in layers]
        for name, _ in modules[0].named_parameters():
            copies = [module.get_parameter(name) for module in modules]
            value = copies[0].clone() if start is LayerStart.first else sum(copies) / 4
            for copy in copies:
                copy.copy_(value)
    ours, plain = (observe(model, batch, HIDDEN, SCORES) for model in (student, teacher))
    torch.testing.assert_close(ours.logits, plain.logits)
    assert list(ours[HIDDEN]) == list(plain[HIDDEN]) == [0, 1, 2, 3, 4]
    assert list(ours[SCORES]) == list(plain[SCORES]) == [1, 2, 3, 4]
    for layer in plain[SCORES]:
        torch.testing.assert_close(ours[HIDDEN][layer], plain[HIDDEN][layer])
        torch.testing.assert_close(ours[SCORES][layer], plain[SCORES][layer])


@pytest.mark.parametrize(
    ("share", "saved"),
    [
        # attention: four projections of 16 x 16 with biases and two vectors; feed-forward: 16 x 32 both ways and two
        (Share.attention, 3 * (4 * (16 * 16 + 16) + 2 * 16)),
        (Share.feed_forward, 3 * (2 * 16 * 32 + 32 + 16 + 2 * 16)),
        (Share.all, 3 * (4 * (16 * 16 + 16) + 2 * 16 + 2 * 16 * 32 + 32 + 16 + 2 * 16)),
    ],
)
def test_what_is_shared_is_counted_and_saved_once(share: Share, saved: int, tmp_path: Path) -> None:
    teacher = tiny_model()
    student = Shared(share=share, embedding_size=0).build(teacher)
    assert parameters(teacher) - parameters(student) == saved
    student.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        numbers = sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
    assert numbers == parameters(student)


def test_a_step_of_training_moves_all_layers_alike_by_the_sum_of_their_gradients() -> None:
    teacher, batch = tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), tiny_batch()
    student = Shared(embedding_size=0).build(teacher)
    first = teacher.bert.encoder.layer[0].state_dict()
    for layer in teacher.bert.encoder.layer:
        layer.load_state_dict(first)
    for model in (student, teacher):
        observe(model, batch).logits.square().sum().backward()
    theirs = sum(layer.output.dense.weight.grad for layer in teacher.bert.encoder.layer)
    torch.testing.assert_close(student.bert.encoder.layer[3].output.dense.weight.grad, theirs)


@torch.no_grad()
def test_factorised_embeddings_are_the_nearest_product_of_their_rank() -> None:
    teacher = tiny_model()
    whole = teacher.bert.embeddings.word_embeddings.weight
    words = torch.arange(len(whole))
    student = Shared(embedding_size=5).build(teacher)
    error = (student.bert.embeddings.word_embeddings(words) - whole).norm()
    torch.testing.assert_close(error, torch.linalg.svdvals(whole)[5:].norm())
    assert parameters(student.bert.embeddings.word_embeddings) == len(whole) * 5 + 5 * 16
    assert Shared().build(teacher).config.word_embedding_size == 8
    assert Shared().build(tiny_model("electra")).config.word_embedding_size == 0  # it is factorised already


@torch.no_grad()
def test_layers_of_their_own_start_from_the_mapped_ones_and_fewer_may_do() -> None:
    teacher = tiny_model()
    student = Shared(layers=2, layer_map=[2, 4], share=Share.attention).build(teacher)
    ours, theirs = student.bert.encoder.layer, teacher.bert.encoder.layer
    for place, layer in enumerate((1, 3)):
        assert torch.equal(ours[place].output.dense.weight, theirs[layer].output.dense.weight)
        assert torch.equal(ours[place].attention.self.key.weight, theirs[1].attention.self.key.weight)
    assert list(observe(student, tiny_batch(), HIDDEN)[HIDDEN]) == [0, 1, 2]


def test_it_reloads_to_the_bit_in_a_fresh_process(tmp_path: Path) -> None:
    shares = dict(zip(FAMILY_NAMES, (*Share, Share.all), strict=True))
    check_reloading({name: Shared(share=share).build(tiny_model(name)) for name, share in shares.items()}, tmp_path)


@torch.no_grad()
def test_onnx_holds_shared_weights_once_and_says_what_pytorch_says(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=25, hidden_size=64, num_hidden_layers=6, num_attention_heads=4, intermediate_size=256
    )
    student, batch = Shared(embedding_size=8).build(BertForSequenceClassification(config).eval()), tiny_batch()
    names, path = ["input_ids", "attention_mask", "token_type_ids"], tmp_path / "model.onnx"
    write_onnx(student, names, path)
    graph = onnx.load(path).graph
    assert sum(int(np.prod(weight.dims)) for weight in graph.initializer) < 1.02 * parameters(student)
    stored = {weight.name for weight in graph.initializer}
    assert not [node.name for node in graph.node if node.op_type == "Transpose" and node.input[0] in stored]
    quantize_dynamic(path, tmp_path / "int8.onnx", op_types_to_quantize=["MatMul", "Gemm", "Gather"])
    assert (tmp_path / "int8.onnx").stat().st_size < parameters(student) + 120_000  # all of it in one byte each
    assert path.stat().st_size < 4 * parameters(student) + 80_000  # a layer alone takes 200,000
    outputs = onnxruntime.InferenceSession(path).run(None, {name: batch[name].numpy() for name in names})[0]
    np.testing.assert_allclose(outputs, observe(student, batch).logits.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("student", "setting"),
    [
        (Shared(layers=5), "layers"),
        (Shared(layers=2, layer_map=[1, 9]), "layer_map"),
        (Shared(embedding_size=16), "embedding_size"),
    ],
)
def test_what_does_not_fit_the_teacher_is_refused(student: Shared, setting: str) -> None:
    assert [fault.setting for fault in student.faults(Known(teacher=tiny_model().config))] == [setting]


def test_a_pruned_teacher_and_one_that_shares_itself_are_refused() -> None:
    pruned = shrink(tiny_model(), heads=[[0, 1], [1], [2], [3]]).config
    shared = Shared().build(tiny_model()).config
    assert not can_be_taken_apart(shared)
    for teacher in (pruned, shared):
        assert [fault.setting for fault in Shared().faults(Known(teacher=teacher))] == ["share"]
