"""What each part costs in a form of fewer bits: the layer that only suffers there is the one that is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compress.data.dataset import Dataset, Split
from compress.families.forms.fake_quantization import FAKE, FakeQuantization
from compress.families.forms.quantization_aware import fake_quantized
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model, save_model
from compress.models.tokens import tokenize
from compress.onnx.folder import MODEL, onnx_student
from compress.onnx.storage import inferred
from compress.pipeline.artifact import Artifact, Trained
from compress.pipeline.model import Model
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.bitsandbytes import BitsAndBytes
from compress.quantize.groups import GroupWise
from compress.quantize.half import HalfPrecision, Halved
from compress.quantize.qat import QuantizationAware, move_ranges
from compress.quantize.qdq import MATRIX_PRODUCTS, IntegerScheme, nodes_by_part
from compress.quantize.symmetric import SymmetricInt8
from compress.tasks.classification import Classification
from tests.conftest import reviews, tiny_model, tiny_tokenizer

SPOILT, LARGE = 1, 1000.0  # of the layers, counted from 0


def spoil(model: Any) -> None:
    """Add one number to all outputs of a layer's feed-forward network, by a unit that never varies, and take it away.

    Beside that unit's weights the others are rounded away in few bits.
    """
    layer = model.bert.encoder.layer[SPOILT]
    feed, out = layer.intermediate.dense, layer.output.dense
    with torch.no_grad():
        feed.weight *= 8
        feed.weight[0], feed.bias[0] = 0.0, 10.0  # GELU of 10 is 10
        out.weight *= 8
        out.weight[:, 0] = LARGE
        out.bias -= 10 * LARGE


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    folder = tmp_path_factory.mktemp("costs")
    head = Classification(("bad", "good")).head_config()
    model = tiny_model(seed=3, **head)
    spoil(model)
    texts = tuple(text for _, text in reviews(200, 1))
    tokens = tokenize(Split(texts), tiny_tokenizer(), 32)
    with torch.no_grad():  # both labels occur
        first = predict_rows(model, tokens)
        model.classifier.bias[0] -= float(np.median(first[:, 0] - first[:, 1]))
        model.classifier.weight *= 20
        model.classifier.bias *= 20
    save_model(model, tiny_tokenizer(), folder / "student")
    split = Split(texts, labels=predict_rows(model, tokens).argmax(-1))
    data = Dataset("reviews", Classification(("bad", "good")), split, split, split.take(np.arange(4)))
    return State.begin(data, Workshop(folder / "cache"), 1, student=Model(folder / "student", "student"))


@pytest.mark.parametrize(
    "stage",
    [GroupWise(bits=4, group=32), SymmetricInt8(), BitsAndBytes(threshold=0)],
    ids=lambda stage: type(stage).__name__,
)
def test_the_layer_that_suffers_is_the_costliest(state: State, stage: Stage) -> None:
    artifact = stage(state).artifacts[-1]
    found = stage.costs(state, artifact)
    assert {cost.part for cost in found} - {"head", "embeddings"} == {f"layer {number}" for number in (1, 2, 3, 4)}
    first, *others = found
    assert first.part == f"layer {SPOILT + 1}"
    assert first.drop is not None
    assert first.drop > 0.1
    assert first.loss > 5 * max(cost.loss for cost in others)
    assert stage.costs(state, artifact) == found


def test_of_fp16_each_layers_own_products_are_in_fp16_and_no_others(state: State) -> None:
    stage = HalfPrecision(rows=32)
    costs = stage.costs(state, stage(state).artifacts[-1])
    assert {cost.part for cost in costs} == {"head", *(f"layer {number}" for number in (1, 2, 3, 4))}
    model = onnx.load(onnx_student(state).folder / MODEL)
    parts = nodes_by_part(model, attention=True, embeddings=False)
    for nodes in parts.values():
        made = inferred(Halved(model, parts, {}, IntegerScheme()).made(nodes)).graph
        halves = {v.name for v in made.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
        products = [node for node in made.node if node.op_type in MATRIX_PRODUCTS]
        assert {node.name for node in products if node.output[0] in halves} == set(nodes)


def test_of_a_model_that_was_trained_for_int8_the_parts_are_those_of_the_trained_model(
    state: State, tmp_path: Path
) -> None:
    student = load_model(state.given_student.folder)
    trained = fake_quantized(student, FakeQuantization())
    tokens = tokenize(state.data.train, tiny_tokenizer(), 32)
    move_ranges(trained, tokens, 1)
    save_model(trained, tiny_tokenizer(), tmp_path / "trained")
    artifact = Artifact(
        name="qat", runtime="onnxruntime", precision="int8", folder=tmp_path, key="qat",
        trained=Trained(Model(tmp_path / "trained", "trained"), 1.0),
    )  # fmt: skip
    costs = QuantizationAware().costs(state, artifact)
    assert costs[0].part == f"layer {SPOILT + 1}"
    assert {cost.part for cost in costs} == {"embeddings", "head", *(f"layer {number}" for number in (1, 2, 3, 4))}
    layer = trained.bert.encoder.layer[SPOILT]
    inside = {id(module) for module in layer.modules()}
    by_hand = load_model(state.given_student.folder)
    for name, module in trained.named_modules():
        if id(module) in inside and isinstance(module, FAKE):
            by_hand.set_submodule(name, module)
    answers = predict_rows(by_hand, tokens).argmax(-1)
    assert costs[0].drop == pytest.approx(float((answers != state.data.train.labels).mean()))
